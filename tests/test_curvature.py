"""The estimates of curvature: against dense Hessians in NumPy, float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpoptax import curvature

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def network():
    """Returns the loss of a perceptron of 44 parameters on random data, its parameters, and its Hessian."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((32, 5)), jnp.float32)
    y = jnp.asarray(rng.integers(0, 3, 32))
    params = {
        "hidden": jnp.asarray(rng.standard_normal((5, 4)), jnp.float32),
        "head": (jnp.asarray(3 * rng.standard_normal((4, 6)), jnp.float32)),
    }

    def loss(params):
        logits = jnp.tanh(x @ params["hidden"]) @ params["head"]
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(32), y])

    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
        blocks = jax.jit(jax.hessian(loss))(wide)
    order = ("head", "hidden")  # of a tree's leaves.
    sizes = {name: params[name].size for name in order}
    hessian = np.block([[np.asarray(blocks[a][b]).reshape(sizes[a], sizes[b]) for b in order] for a in order])
    return loss, params, hessian


def matrix_with(eigenvalues):
    rng = np.random.default_rng(0)
    axes, _ = np.linalg.qr(rng.standard_normal((len(eigenvalues), len(eigenvalues))))
    return jnp.asarray(axes @ np.diag(eigenvalues) @ axes.T, jnp.float32)


@jax.jit
def spectrum_of(matrix, x):
    return curvature.hessian_spectrum(lambda x: x @ matrix @ x / 2, x, KEY, num_samples=3)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_few_steps_give_extremes_trace_norm_and_evenness_of_the_dense_hessian(network):
    loss, params, hessian = network
    expected = np.linalg.eigvalsh(hessian)
    estimate = jax.jit(
        lambda params: curvature.summary(
            curvature.hessian_spectrum(loss, params, KEY, num_steps=24, num_samples=1000)
        )
    )(params)
    scale = np.abs(expected).max()
    assert estimate.largest == pytest.approx(expected.max(), abs=1e-3 * scale)
    assert estimate.smallest == pytest.approx(expected.min(), abs=1e-3 * scale)
    # Five standard errors.
    norm = np.linalg.norm(expected)
    assert estimate.trace == pytest.approx(np.trace(hessian), abs=5 * norm * np.sqrt(2 / 1000))
    assert estimate.frobenius_norm == pytest.approx(norm, rel=0.1)
    even = np.abs(expected).sum() ** 2 / (len(expected) * norm**2)
    assert estimate.evenness == pytest.approx(even, rel=0.1)


@pytest.mark.parametrize(
    "eigenvalues",
    [
        [*np.linspace(-3, 16, 20)],
        [4.0] * 20,
        [1.0] * 10 + [5.0] * 10,
        [0.0] * 17 + [-7.0, 3.0, 3.0],
        [1.0] * 18 + [-3e3, 1e4],
        [0.0] * 20,
    ],
)
def test_as_many_steps_as_parameters_find_every_eigenvalue_and_no_other(eigenvalues):
    spectrum = spectrum_of(matrix_with(eigenvalues), jnp.ones(20))
    tolerance = 2e-5 * np.abs(eigenvalues).max()
    found = np.asarray(spectrum.eigenvalues)
    assert found.min() == pytest.approx(min(eigenvalues), abs=tolerance)
    assert found.max() == pytest.approx(max(eigenvalues), abs=tolerance)
    for value in eigenvalues:
        assert np.abs(found - value).min(axis=1).max() <= tolerance
    np.testing.assert_allclose(spectrum.weights.sum(axis=1), 1, rtol=1e-5)


def test_the_density_is_that_of_the_broadened_eigenvalues():
    eigenvalues = np.array([[-2.0, 0.0, 0.5], [0.0, 3.0, 3.0]])
    weights = np.array([[0.2, 0.7, 0.1], [0.5, 0.1, 0.4]])
    spectrum = curvature.HessianSpectrum(jnp.asarray(eigenvalues), jnp.asarray(weights), jnp.asarray(9.0))
    grid = np.linspace(-4, 5, 31)
    distances = (grid[:, None, None] - eigenvalues) / 0.3
    heights = np.exp(-(distances**2) / 2) / np.sqrt(2 * np.pi) / 0.3
    density = curvature.spectral_density(spectrum, grid, 0.3)
    np.testing.assert_allclose(density, np.sum(weights * heights, axis=(1, 2)) / 2, rtol=1e-5, atol=1e-30)
    assert curvature.spectral_density(spectrum, grid.reshape(1, 31), 0.3).shape == (1, 31)


def test_the_curvature_of_the_coordinates_is_the_norm_of_the_rows(network):
    loss, params, hessian = network
    estimate = jax.jit(lambda params: curvature.coordinate_curvature(loss, params, KEY, num_samples=4000))(
        params
    )
    assert jax.tree.structure(estimate) == jax.tree.structure(params)
    np.testing.assert_allclose(flat(estimate), np.linalg.norm(hessian, axis=1), rtol=0.06)


def test_evenness_is_the_squared_ratio_of_norms_at_any_scale():
    rng = np.random.default_rng(0)
    values = rng.standard_normal(12) ** 3
    expected = np.abs(values).sum() ** 2 / (12 * np.square(values).sum())
    for scale in (1e-30, 1.0, 1e30):
        tree = {"a": jnp.asarray(scale * values[:4], jnp.float32), "b": scale * values[4:].reshape(2, 4)}
        assert float(curvature.evenness(tree)) == pytest.approx(expected, rel=1e-5)
    assert np.isnan(curvature.evenness(jnp.zeros(3)))


@pytest.mark.parametrize("scale", [2e-24, 1.0, 2e24])
def test_a_summary_scales_with_the_spectrum_but_for_the_evenness(scale):
    eigenvalues, weights = np.array([[-2.0, 1.0, 4.0], [-1.0, 0.5, 3.0]]), np.array([[0.2, 0.3, 0.5]] * 2)
    summary = curvature.summary(
        curvature.HessianSpectrum(
            jnp.asarray(scale * eigenvalues, jnp.float32), jnp.asarray(weights), jnp.asarray(7.0)
        )
    )
    absolute, square = ((weights * moment).sum() / 2 for moment in (np.abs(eigenvalues), eigenvalues**2))
    trace, norm = 7 * (weights * eigenvalues).sum() / 2, np.sqrt(7 * square)
    expected = [scale * value for value in (4, -2, trace, norm)] + [absolute**2 / square]
    np.testing.assert_allclose(summary, expected, rtol=1e-6)


def test_a_summary_of_no_curvature_is_0_without_an_evenness():
    spectrum = curvature.HessianSpectrum(jnp.zeros((2, 3)), jnp.full((2, 3), 1 / 3), jnp.asarray(7.0))
    np.testing.assert_array_equal(curvature.summary(spectrum), [0, 0, 0, 0, np.nan])


def test_half_precision_is_computed_in_float32():
    spectrum = spectrum_of(matrix_with(np.linspace(1, 300, 20)), jnp.ones(20, jnp.bfloat16))
    assert spectrum.eigenvalues.dtype == jnp.float32
    assert spectrum.eigenvalues.min() == pytest.approx(1, rel=1e-3)


def test_a_hessian_that_is_not_finite_has_no_finite_spectrum():
    matrix = matrix_with([1.0] * 20).at[3, 4].set(jnp.nan)
    spectrum = spectrum_of(matrix, jnp.ones(20))
    assert not np.isfinite(spectrum.eigenvalues).any()
    assert not np.isfinite(curvature.summary(spectrum)).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps must be a whole number, at least 1"),
        ({"num_samples": 1.5}, "num_samples must be a whole number, at least 1"),
        ({"params": {}}, "real floating-point numbers, got nothing"),
        ({"params": {"w": jnp.arange(3)}}, "real floating-point numbers, got int32"),
        ({"params": jnp.ones(2, jnp.complex64)}, "real floating-point numbers, got complex64"),
    ],
)
def test_what_cannot_be_measured_is_refused(options, message):
    arguments = {"params": jnp.ones(3), **options}
    with pytest.raises(ValueError, match=message):
        curvature.hessian_spectrum(lambda x: jnp.sum(x**2), key=KEY, **arguments)


def test_a_width_that_is_not_positive_is_refused():
    spectrum = curvature.HessianSpectrum(jnp.ones((1, 1)), jnp.ones((1, 1)), jnp.ones(()))
    with pytest.raises(ValueError, match="width must be above 0"):
        curvature.spectral_density(spectrum, jnp.zeros(1), 0.0)
