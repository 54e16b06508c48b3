"""The power of singular values, without their decomposition, and descent in Schatten norms."""

import re

import chex
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from optax.contrib import MuonDimensionNumbers

import lpoptax
from lpoptax import _newton_schulz
from tests import reference
from tests.helpers import enable_x64, random_problem, trajectory
from tests.test_power import HALF_AND_SINGLE, extreme_values

EVERY_P = [2.0, 2.02, 2.5, 3.0, 6.0, 11.0, 100.0, np.inf]
SHAPES = [(24, 24), (40, 16), (16, 24), (8, 100), (1, 7), (3, 2, 12, 20)]
KERNEL = MuonDimensionNumbers((0, 1, 2), 3)
MATRIX = MuonDimensionNumbers(-2, -1)
# Relative, in unit RMS, over singular values of at least 1e-3 of their 8-norm.
BOUNDS = [(8, 0.04), (10, 0.005), (16, 0.005)]
every_p = pytest.mark.parametrize("p", EVERY_P)
SEED = st.integers(0, 2**32 - 1)
P = st.one_of(st.floats(2.0, 64.0), st.just(np.inf))


def orthonormal(rng, rows, columns):
    return np.linalg.qr(rng.standard_normal((rows, columns)))[0]


def matrix(shape, lowest=1e-3, seed=0):
    """Returns a matrix, or a stack of them; half of the singular values are log-spaced, half the lowest."""
    rng = np.random.default_rng(seed)
    *batch, m, n = shape
    if batch:
        return np.stack([matrix(shape[1:], lowest, seed + i) for i in range(batch[0])])
    count = min(m, n)
    singular = np.r_[np.geomspace(1, lowest, count - count // 2), np.full(count // 2, lowest)]
    # The 8-norm of the large ones stays above 1.
    singular = singular * np.where(singular == lowest, 1.2, 1) if count > 1 else singular
    return (orthonormal(rng, m, count) * singular) @ orthonormal(rng, n, count).T


def power(g, p, eps=0.0, **settings):
    """Returns the update for a gradient that is one leaf."""
    settings = {"weight_dimension_numbers": MATRIX, **settings}
    transformation = lpoptax.scale_by_schatten_power(p, eps, **settings)
    return transformation.update(g, transformation.init(g))[0]


def unit_rms(x):
    return x / np.sqrt(np.mean(np.abs(x) ** 2, axis=(-2, -1), keepdims=True))


def assert_close_in_unit_rms(found, expected, bound):
    """Compares matrices at a root mean square of 1, each with its own error."""
    difference = unit_rms(np.asarray(found, expected.dtype)) - unit_rms(expected)
    assert np.max(np.sqrt(np.mean(np.abs(difference) ** 2, axis=(-2, -1)))) < bound


# What it equals


@every_p
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("steps", "bound"), BOUNDS)
def test_singular_values_are_raised_to_the_power_within_the_bound(p, shape, steps, bound):
    g = matrix(shape)
    found = power(jnp.asarray(g, jnp.float32), p, ns_steps=steps)
    assert_close_in_unit_rms(found, reference.schatten_power(g, p), bound)


@pytest.mark.parametrize("shape", [(32, 40), (32, 128), (16, 512)])
def test_rounding_errors_do_not_grow_in_wide_matrices(shape):
    g = matrix(shape, lowest=2e-4)
    found = power(jnp.asarray(g, jnp.float32), np.inf, ns_steps=14)
    assert_close_in_unit_rms(found, reference.schatten_power(g, np.inf), 0.005)


@pytest.mark.parametrize("shape", [(32, 40), (32, 128)])
@pytest.mark.parametrize(("dtype", "bound"), [(jnp.float16, 0.003), (jnp.bfloat16, 0.03)])
def test_products_of_lower_precision_are_good_for_large_singular_values(shape, dtype, bound, monkeypatch):
    exact_product = _newton_schulz._product

    def product(x, y, precision):
        is_of_matrices = x.ndim == 3
        # A float16 has the fraction of a TF32.
        x, y = (z.astype(dtype).astype(z.dtype) if is_of_matrices else z for z in (x, y))
        return exact_product(x, y, precision)

    monkeypatch.setattr(_newton_schulz, "_product", product)
    for p, s in ((np.inf, 0.0), (3.0, 0.5)):
        settings = {"eps": 0.0, "precision": "highest", "unit_rms": True}
        for lowest, steps in ((3e-2, 8), (1e-3, 16)):
            g = matrix(shape, lowest)
            stack = jnp.asarray(g, jnp.float32)[None]
            (found,) = _newton_schulz.schatten_power(stack, jnp.float32(s), steps=steps, **settings)
            # Small ones drown in rounding errors, but do not grow from step to step.
            assert_close_in_unit_rms(found, reference.schatten_power(g, p), bound if lowest > 1e-2 else 0.6)


@every_p
@pytest.mark.parametrize("shape", SHAPES)
def test_bfloat16_adds_its_rounding(p, shape):
    g = jnp.asarray(matrix(shape, lowest=3e-2), jnp.bfloat16)
    found = power(g, p)
    assert found.dtype == jnp.bfloat16
    assert_close_in_unit_rms(found, reference.schatten_power(np.asarray(g, np.float64), p), 0.01)


@every_p
def test_the_scale_is_right_too(p):
    g = 300 * matrix((16, 24))
    found = np.asarray(power(jnp.asarray(g, jnp.float32), p, eps=1e-2), np.float64)
    expected = reference.schatten_power(g, p, 1e-2)
    assert np.linalg.norm(found - expected) < 0.04 * np.linalg.norm(expected)


@pytest.mark.parametrize("dtype", HALF_AND_SINGLE)
@pytest.mark.parametrize("is_traced", [False, True])
def test_p_2_is_the_identity_bit_for_bit(dtype, is_traced):
    g = jnp.concatenate([extreme_values(dtype)[:, None], jnp.ones((22, 3), dtype)], axis=1)
    u = jax.jit(power)(g, 2.0) if is_traced else power(g, 2.0)
    assert np.asarray(u).tobytes() == np.asarray(g).tobytes()


@pytest.mark.parametrize("shape", SHAPES)
def test_p_infinity_makes_all_singular_values_1(shape):
    u = power(jnp.asarray(matrix(shape), jnp.float32), np.inf)
    singular = np.linalg.svd(np.asarray(u), compute_uv=False)
    assert np.all(np.abs(singular - 1) < 0.04)


def test_singular_values_below_the_range_never_become_much_larger():
    u = power(jnp.diag(jnp.geomspace(1e-7, 1.0, 30)), np.inf)
    singular = np.diag(np.asarray(u))
    assert np.max(singular) < 1.04
    assert singular[0] < 1e-3


@given(seed=SEED, p=P, a=st.floats(1e-3, 1e3))
def test_it_is_positively_homogeneous_of_degree_one_over_p_minus_1(seed, p, a):
    g = jnp.asarray(matrix((6, 10), seed=seed), jnp.float32)
    chex.assert_trees_all_close(
        power(jnp.float32(a) * g, p), a ** (1 / (p - 1)) * power(g, p), rtol=1e-3, atol=1e-4
    )


@given(seed=SEED, p=P)
def test_it_turns_with_rotations_of_rows_and_columns(seed, p):
    with enable_x64(True):
        rng = np.random.default_rng(seed)
        g = matrix((6, 10), seed=seed)
        left, right = orthonormal(rng, 6, 6), orthonormal(rng, 10, 10)
        turned = power(jnp.asarray(left @ g @ right), p)
        chex.assert_trees_all_close(turned, left @ power(jnp.asarray(g), p) @ right, rtol=1e-6, atol=1e-8)


@given(seed=SEED, p=P, shape=st.sampled_from([(6, 10), (5, 30), (7, 7)]))
def test_the_transpose_goes_to_the_transpose(seed, p, shape):
    g = jnp.asarray(matrix(shape, seed=seed), jnp.float32)
    chex.assert_trees_all_close(power(g.T, p), power(g, p).T, rtol=1e-3, atol=1e-4)


@every_p
@pytest.mark.parametrize("eps", [0.0, 1e-8, 0.05])
def test_of_a_diagonal_it_is_the_power_of_the_diagonal(p, eps):
    diagonal = jnp.asarray([-3.0, 0.5, 0.02, 1.0, 0.2])
    u = power(jnp.diag(diagonal), p, eps, ns_steps=10)
    chex.assert_trees_all_close(u, jnp.diag(lpoptax.lp_power(diagonal, p, eps)), rtol=6e-3, atol=1e-5)


@every_p
@pytest.mark.parametrize("normalization", [None, "rms"])
def test_zero_stays_zero(p, normalization):
    g = jnp.zeros((2, 3, 4)).at[1].set(1.0)
    u = power(g, p, normalization=normalization)
    chex.assert_trees_all_equal(u[0], jnp.zeros((3, 4)))
    assert jnp.all(u[1] > 0)


@every_p
@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (8, 40)])
def test_a_matrix_of_rank_one_keeps_its_vectors(p, shape):
    rng = np.random.default_rng(0)
    left, right = (orthonormal(rng, size, 1) for size in shape)
    u = power(jnp.asarray(5 * left @ right.T, jnp.float32), p)
    chex.assert_trees_all_close(u, jnp.asarray(5 ** (1 / (p - 1)) * left @ right.T, jnp.float32), atol=1e-2)


@pytest.mark.parametrize("dtype", HALF_AND_SINGLE)
@pytest.mark.parametrize("normalization", [None, "rms"])
@pytest.mark.parametrize("p", [2.0, 2.0001, 3.0, np.inf])
def test_no_finite_matrix_gives_nan_or_infinity(dtype, normalization, p):
    values = extreme_values(dtype)
    different, alike = jnp.asarray([[1.0, -0.5, 0.25], [0.125, 1.0, 0.5]], dtype), jnp.ones((2, 3), dtype)
    stack = jnp.concatenate([jnp.einsum("i,jk->ijk", values, one) for one in (different, alike)])
    for g in (stack, jnp.outer(jnp.ones(5, dtype), values)):
        for eps in (0.0, 1e-45, 1e-8, 1.0, 1e30, 3e38):
            u = power(g, p, eps, normalization=normalization)
            assert u.dtype == dtype
            chex.assert_tree_all_finite(u)


@every_p
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_each_matrix_of_unit_rms_has_it(p, scale):
    g = jnp.asarray(scale * matrix((3, 6, 10)), jnp.float32)
    u = power(g, p, normalization="rms")
    chex.assert_trees_all_close(jnp.mean(u**2, axis=(1, 2)), jnp.ones(3), rtol=1e-5)
    assert_close_in_unit_rms(u, reference.schatten_power(np.asarray(g), p), 0.04)


@every_p
def test_a_complex_matrix_has_the_same_power(p):
    rng = np.random.default_rng(0)
    phase = np.linalg.qr(rng.standard_normal((6, 6)) + 1j * rng.standard_normal((6, 6)))[0]
    g = phase @ matrix((6, 20))
    found = power(jnp.asarray(g, jnp.complex64), p)
    assert_close_in_unit_rms(found, reference.schatten_power(g, p), 0.04)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_undefined_or_infinite_is_undefined(bad):
    assert jnp.isnan(power(jnp.ones((3, 4)).at[1, 2].set(bad), 3.0)).all()


# Every way to give p


@pytest.mark.parametrize("p", [2.0, 2.5, 6.0, np.inf])
def test_a_number_a_traced_scalar_and_a_schedule_are_the_same(p):
    g = jnp.asarray(matrix((6, 10)), jnp.float32)
    number = power(g, p)
    chex.assert_trees_all_close(jax.jit(power)(g, p), number, rtol=1e-4, atol=1e-6)
    schedule = power(g, lambda step: jnp.where(step == 0, jnp.float32(p), jnp.nan))
    chex.assert_trees_all_close(schedule, number, rtol=1e-4, atol=1e-6)


def test_many_p_run_in_one_compiled_program():
    g, p = jnp.asarray(matrix((6, 10)), jnp.float32), jnp.array([2.0, 3.0, jnp.inf])
    together = jax.jit(jax.vmap(power, in_axes=(None, 0)))(g, p)
    for row, one in zip(together, p.tolist(), strict=True):
        chex.assert_trees_all_close(row, power(g, one), rtol=1e-4, atol=1e-6)


def test_a_traced_p_below_2_is_taken_for_2():
    g = jnp.asarray(matrix((6, 10)), jnp.float32)
    chex.assert_trees_all_equal(jax.jit(power)(g, 1.5), g)


def test_the_derivative_in_p_is_that_of_finite_differences():
    with enable_x64(True):
        g = jnp.asarray(matrix((6, 10)))
        chex.assert_numerical_grads(lambda p: power(g, p, 1e-3), (jnp.array(3.0),), order=1, atol=1e-5)


@pytest.mark.parametrize("normalization", [None, "rms"])
def test_the_derivative_in_the_matrix_is_that_of_finite_differences(normalization):
    with enable_x64(True):
        g = jnp.asarray(matrix((3, 5)))
        chex.assert_numerical_grads(
            lambda g: power(g, 3.0, 1e-3, ns_steps=4, normalization=normalization), (g,), order=1, atol=1e-4
        )


@pytest.mark.parametrize("normalization", [None, "rms"])
def test_the_derivative_at_zero_is_finite(normalization):
    slope = jax.grad(lambda g: jnp.sum(power(g, 3.0, 1e-3, normalization=normalization)))(jnp.zeros((3, 5)))
    chex.assert_tree_all_finite(slope)


# Which leaves


def test_by_default_matrices_are_the_leaves_of_two_dimensions():
    g = {
        "w": jnp.asarray(matrix((6, 10)), jnp.float32),
        "b": jnp.ones(3),
        "s": jnp.ones((2, 3, 4)),
        "n": None,
    }
    transformation = lpoptax.scale_by_schatten_power(np.inf, 0.0)
    u, _ = transformation.update(g, transformation.init(g))
    chex.assert_trees_all_equal({**u, "w": None}, {**g, "w": None})
    chex.assert_trees_all_close(u["w"], power(g["w"], np.inf), rtol=1e-5)


NUMBERS = {"conv": KERNEL, "layers": MATRIX, "head": None, "blocks": MATRIX}


@pytest.mark.parametrize("numbers", [NUMBERS, lambda updates: NUMBERS], ids=["tree", "function"])
def test_dimension_numbers_say_what_a_matrix_is(numbers):
    rng = np.random.default_rng(0)
    shapes = {"conv": (3, 2, 4, 5), "layers": (3, 6, 10), "head": (4, 4), "blocks": [(6, 10), (10, 6)]}
    g = jax.tree.map(
        lambda shape: jnp.asarray(rng.standard_normal(shape), jnp.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )
    u = power(g, 3.0, weight_dimension_numbers=numbers)
    expected = {
        "conv": power(g["conv"].reshape(24, 5), 3.0).reshape(3, 2, 4, 5),
        "layers": jnp.stack([power(layer, 3.0) for layer in g["layers"]]),
        "head": g["head"],
        "blocks": [power(block, 3.0) for block in g["blocks"]],
    }
    chex.assert_trees_all_close(u, expected, rtol=1e-4, atol=1e-6)


def test_axes_in_any_order_are_one_matrix():
    g = jnp.asarray(np.random.default_rng(0).standard_normal((5, 2, 4, 3)), jnp.float32)
    u = power(g, 3.0, weight_dimension_numbers=MuonDimensionNumbers((3, 1), (0,)))
    for index in range(4):
        one = g[:, :, index].transpose(0, 2, 1).reshape(5, 6)
        expected = power(one, 3.0).reshape(5, 3, 2).transpose(0, 2, 1)
        chex.assert_trees_all_close(u[:, :, index], expected, rtol=1e-4, atol=1e-6)


def test_leaves_that_are_masked_pass_through():
    g = {
        "a": jnp.asarray(matrix((6, 10)), jnp.float32),
        "b": jnp.asarray(matrix((6, 10), seed=1), jnp.float32),
    }
    numbers = {"a": MATRIX, "b": MATRIX}
    masked = optax.masked(
        lpoptax.scale_by_schatten_power(3.0, 0.0, weight_dimension_numbers=numbers), {"a": True, "b": False}
    )
    u, _ = masked.update(g, masked.init(g))
    chex.assert_trees_all_equal(u["b"], g["b"])
    chex.assert_trees_all_close(u["a"], power(g["a"], 3.0), rtol=1e-5)


@pytest.mark.parametrize("g", [jnp.ones((3, 4)), {"a": jnp.ones((3, 4))}], ids=["one leaf", "a prefix"])
def test_a_function_that_finds_no_matrix_is_believed(g):
    chex.assert_trees_all_equal(power(g, 3.0, weight_dimension_numbers=lambda updates: None), g)


def compiled_size(leaves):
    """Returns how many operations, and how many products, an update of equal matrices compiles to."""
    g = [jnp.ones((8, 12)) for _ in range(leaves)]
    transformation = lpoptax.scale_by_schatten_power(3.0)
    text = jax.jit(transformation.update).lower(g, transformation.init(g)).as_text()
    return text.count("\n"), text.count("dot_general")


def test_a_program_grows_with_the_number_of_shapes_and_not_of_leaves():
    (few, products), (many, as_many) = compiled_size(4), compiled_size(64)
    assert as_many == products
    # Into the stack, out of it in two, and the selection at p = 2.
    assert many < few + 5 * 60


# Errors


@pytest.mark.parametrize("bad", [1.0, 1.99, -3.0, float("nan"), "3", None, [3.0], jnp.array([2.0, 3.0])])
@pytest.mark.parametrize("build", [lpoptax.scale_by_schatten_power, lambda p: lpoptax.schatten_sgdm(0.1, p)])
def test_a_p_below_2_or_that_is_no_number_is_refused(build, bad):
    with pytest.raises(ValueError, match=r"p must be at least 2 \(infinity included\), got p="):
        build(bad)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": -1.0}, "eps must be non-negative and finite, got eps=-1.0"),
        ({"ns_steps": 0}, "ns_steps must be a whole number from 1 to 16, got ns_steps=0"),
        ({"ns_steps": 17}, "ns_steps must be a whole number from 1 to 16, got ns_steps=17"),
        ({"ns_steps": 8.0}, "ns_steps must be a whole number from 1 to 16, got ns_steps=8.0"),
        ({"ns_steps": True}, "ns_steps must be a whole number from 1 to 16, got ns_steps=True"),
        ({"vector_p": 1.0}, r"vector_p must be greater than 1 .*, got vector_p=1.0"),
        ({"momentum": 1.0}, "momentum must be at least 0 and below 1, got momentum=1.0"),
        ({"weight_decay": -0.1}, "weight_decay must be non-negative and finite, got weight_decay=-0.1"),
        ({"learning_rate": "fast"}, "learning_rate must be a number or a schedule, got learning_rate='fast'"),
        ({"batch_sharding": "x"}, "batch_sharding must be a NamedSharding .*, got batch_sharding='x'"),
    ],
)
def test_what_is_outside_its_range_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        lpoptax.schatten_sgdm(**{"learning_rate": 0.1, "p": 3.0, **arguments})


def test_an_unknown_normalization_is_refused():
    with pytest.raises(ValueError, match="normalization must be None or 'rms', got normalization='max'"):
        lpoptax.scale_by_schatten_power(3.0, normalization="max")


@pytest.mark.parametrize(
    ("shape", "numbers"),
    [
        ((3,), MuonDimensionNumbers()),
        ((), MATRIX),
        ((3, 4), MuonDimensionNumbers(0, 2)),
        ((3, 4), MuonDimensionNumbers(-3, 1)),
        ((3, 4), MuonDimensionNumbers(0, -2)),
        ((3, 4, 5), MuonDimensionNumbers((0, 0), 1)),
        ((3, 4, 5), MuonDimensionNumbers((), 1)),
        ((3, 4), MuonDimensionNumbers(0.0, 1)),
        ((3, 4), MuonDimensionNumbers(None, 1)),
        ((3, 4), MuonDimensionNumbers("0", 1)),
    ],
)
def test_numbers_that_name_no_matrix_are_refused(shape, numbers):
    message = rf"different axes .*, got {re.escape(str(numbers))} for a leaf of shape {re.escape(str(shape))}"
    with pytest.raises(ValueError, match=message):
        power(jnp.ones(shape), 3.0, weight_dimension_numbers=numbers)


@pytest.mark.parametrize("bad", [3, "matrix", True])
def test_what_is_no_dimension_numbers_is_refused(bad):
    with pytest.raises(ValueError, match="weight_dimension_numbers must be a tree of .*, got "):
        power({"a": jnp.ones((3, 4))}, 3.0, weight_dimension_numbers={"a": bad})


@pytest.mark.parametrize("bad", [{"b": MATRIX}, {"a": (0, 1)}, {"a": MATRIX, "b": None}, [MATRIX]])
def test_dimension_numbers_of_another_tree_are_refused(bad):
    message = rf"weight_dimension_numbers must be a tree like the updates, .*, got .*={re.escape(repr(bad))}"
    with pytest.raises(ValueError, match=message):
        power({"a": jnp.ones((3, 4))}, 3.0, weight_dimension_numbers=bad)


def test_matrices_of_integers_are_refused_and_other_integers_pass():
    with pytest.raises(ValueError, match="updates must be floats where they are matrices, got .* int32"):
        power(jnp.ones((3, 4), jnp.int32), 3.0)
    chex.assert_trees_all_equal(power(jnp.arange(3), 3.0, weight_dimension_numbers=None), jnp.arange(3))


@pytest.mark.parametrize("name", ["ns_steps", "weight_dimension_numbers"])
def test_what_must_be_static_under_inject_hyperparams_says_so(name):
    value = {"ns_steps": 9, "weight_dimension_numbers": lambda params: jnp.zeros(())}[name]
    injected = optax.inject_hyperparams(lpoptax.schatten_sgdm)(0.1, 3.0, **{name: value})
    params = jnp.ones((3, 4))
    with pytest.raises(ValueError, match=f"{name} must be .*name it in static_args"):
        injected.update(params, injected.init(params), params)


# The optimizer


@pytest.mark.parametrize("nesterov", [True, False])
def test_it_is_momentum_then_the_power_at_unit_rms_then_decay(nesterov):
    params, gradients = random_problem(steps=4)
    optimizer = lpoptax.schatten_sgdm(
        0.1, 3.0, momentum=0.8, weight_decay=0.5, nesterov=nesterov, ns_steps=12
    )
    m, w = np.zeros((3, 2)), np.asarray(params["w"], np.float64)
    for gradient, ours in zip(gradients, trajectory(optimizer, params, gradients), strict=True):
        g = np.asarray(gradient["w"], np.float64)
        m = 0.8 * m + 0.2 * g
        emitted = 0.8 * m + 0.2 * g if nesterov else m
        w = (1 - 0.1 * 0.5) * w - 0.1 * unit_rms(reference.schatten_power(emitted, 3.0))
        np.testing.assert_allclose(ours["w"], w, atol=4 * 0.1 * 5e-3)


def test_at_p_infinity_it_is_muon_of_the_exact_polar_factor():
    params, gradients = random_problem(steps=4)
    params, gradients = {"w": params["w"]}, [{"w": g["w"]} for g in gradients]
    # As many steps of a convergent iteration as give the polar factor, whose RMS in a 3 x 2 matrix is 3^-0.5.
    coefficients = tuple([(2.0, -1.5, 0.5)] * 30)
    # Without Nesterov's momentum, where its correction of the bias changes more than the length.
    muon = optax.contrib.muon(0.1, ns_coeffs=coefficients, ns_steps=30, beta=0.8, nesterov=False)
    ours = lpoptax.schatten_sgdm(0.1 * 3**-0.5, jnp.inf, momentum=0.8, nesterov=False, ns_steps=12)
    chex.assert_trees_all_close(
        trajectory(ours, params, gradients), trajectory(muon, params, gradients), atol=2e-3
    )


def test_at_p_2_it_is_normalized_momentum_sgd():
    params, gradients = random_problem(steps=4)
    expected = lpoptax.lpsgdm(0.1, 2.0, normalization="rms", per_leaf=True)
    ours = lpoptax.schatten_sgdm(0.1, 2.0, vector_p=2.0, nesterov=False)
    chex.assert_trees_all_close(
        trajectory(ours, params, gradients), trajectory(expected, params, gradients), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("vector_p", [1.5, 3.0, np.inf, lpoptax.cosine_p_schedule(6.0, 4)])
def test_leaves_that_are_no_matrices_take_the_coordinatewise_rule(vector_p):
    params, gradients = random_problem(steps=4)
    expected = lpoptax.lpsgdm(0.1, vector_p, normalization="rms", per_leaf=True)
    for numbers, leaves in ((None, ["b"]), ({"w": None, "b": None}, ["b", "w"])):
        ours = lpoptax.schatten_sgdm(
            0.1, 3.0, nesterov=False, vector_p=vector_p, weight_dimension_numbers=numbers
        )
        for visited, other in zip(
            trajectory(ours, params, gradients), trajectory(expected, params, gradients), strict=True
        ):
            chex.assert_trees_all_close(
                [visited[leaf] for leaf in leaves], [other[leaf] for leaf in leaves], rtol=1e-5, atol=1e-6
            )


@every_p
def test_a_step_moves_every_leaf_by_the_learning_rate(p):
    params, gradients = random_problem(steps=1)
    updates, _ = (optimizer := lpoptax.schatten_sgdm(0.01, p)).update(gradients[0], optimizer.init(params))
    for leaf in jax.tree.leaves(updates):
        assert float(jnp.sqrt(jnp.mean(leaf**2))) == pytest.approx(0.01, rel=1e-4)


def test_the_momentum_has_the_accumulator_dtype():
    params = {"w": jnp.ones((3, 4))}
    optimizer = lpoptax.schatten_sgdm(0.1, 3.0, accumulator_dtype=jnp.bfloat16)
    updates, state = optimizer.update(params, optimizer.init(params))
    assert updates["w"].dtype == jnp.float32
    assert optax.tree.get(state, "mu")["w"].dtype == jnp.bfloat16


def test_injected_hyperparameters_can_be_read_and_change_nothing():
    params, gradients = random_problem(steps=3)
    schedule = lpoptax.cosine_p_schedule(6.0, 3)
    injected = optax.inject_hyperparams(lpoptax.schatten_sgdm)(0.1, schedule)
    _, state = injected.update(gradients[0], injected.init(params), params)
    assert float(state.hyperparams["p"]) == 6.0
    chex.assert_trees_all_close(
        trajectory(injected, params, gradients),
        trajectory(lpoptax.schatten_sgdm(0.1, schedule), params, gradients),
        rtol=1e-4,
        atol=1e-4,
    )


def test_it_is_a_primal_step_of_the_coupling():
    params, gradients = random_problem(steps=3)
    primal, dual = lpoptax.schatten_sgdm(0.1, 3.0), lpoptax.mirror_descent(0.1, 3.0)
    alone = trajectory(primal, params, gradients)
    coupled = lpoptax.stacey_coupling(primal, dual, tau=0.0)
    chex.assert_trees_all_close(trajectory(coupled, params, gradients), alone, rtol=1e-5, atol=1e-6)
    (half,) = trajectory(lpoptax.stacey_coupling(primal, dual, tau=0.5), params, gradients[:1])
    (mirror,) = trajectory(dual, params, gradients[:1])
    middle = jax.tree.map(lambda x, z: (x + z) / 2, alone[0], mirror)
    chex.assert_trees_all_close(half, middle, rtol=1e-5, atol=1e-6)


def test_a_p_of_each_layer_and_another_optimizer_for_the_rest():
    params, gradients = random_problem(steps=2)
    params, *gradients = ({**tree, "head": 2 * tree["w"]} for tree in (params, *gradients))
    rules = {
        "body": lpoptax.schatten_sgdm(0.1, 3.0),
        "head": lpoptax.schatten_sgdm(0.1, jnp.inf),
        "rest": optax.adamw(0.1),
    }
    labels = {"w": "body", "head": "head", "b": "rest"}
    together = trajectory(optax.partition(rules, labels), params, gradients)
    for name, label in labels.items():
        alone = trajectory(rules[label], {name: params[name]}, [{name: g[name]} for g in gradients])
        chex.assert_trees_all_close([one[name] for one in together], [one[name] for one in alone], rtol=1e-6)


def test_after_an_average_it_is_the_power_of_the_average():
    params, gradients = random_problem(steps=2)
    chained = optax.chain(optax.ema(0.9), lpoptax.scale_by_schatten_power(6.0))
    state = chained.init(params)
    average = optax.ema(0.9)
    average_state = average.init(params)
    power = lpoptax.scale_by_schatten_power(6.0)
    for g in gradients:
        updates, state = chained.update(g, state)
        mean, average_state = average.update(g, average_state)
        expected, _ = power.update(mean, power.init(params))
        chex.assert_trees_all_close(updates, expected, rtol=1e-6)
