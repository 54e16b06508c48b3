"""Mirror descent: the map, its range, and its limit at p = 2."""

import chex
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given

import lpoptax
from tests import reference
from tests.helpers import enable_x64


def step(z, g, alpha, p):
    dual = lpoptax.mirror_descent(alpha, p)
    updates, _ = dual.update(g, dual.init(z), z)
    return z + updates


@given(
    z=st.floats(-10, 10, allow_subnormal=False),
    g=st.floats(-10, 10, allow_subnormal=False),
    p=st.floats(1.2, 12.0),
)
def test_it_equals_the_formula_in_float64(z, g, p):
    with enable_x64(True):
        stepped = float(step(jnp.asarray(z), jnp.asarray(g), 0.1, p))
    # Where the two terms cancel, or the power underflows, the formula itself is wrong.
    own, pull = abs(z) ** (p - 1), 0.1 * abs(g)
    assume(abs(np.sign(z) * own - np.sign(g) * pull) > 1e-3 * max(own, pull) > 1e-200)
    assert stepped == pytest.approx(float(reference.mirror(z, g, 0.1, p)), rel=1e-10, abs=1e-12 * abs(z))


def exact_step(z, pull, p):
    """Returns z' - z in extended precision, where neither power leaves the range of floats."""
    z, pull, power = z.astype(np.longdouble), pull.astype(np.longdouble), np.longdouble(p) - 1
    w = np.abs(z) ** power * np.sign(z) - pull
    return np.sign(w) * np.abs(w) ** (1 / power) - z


@pytest.mark.parametrize("p", [1.1, 1.5, 2.001, 3.0, 6.0, 9.0, 16.0])
@pytest.mark.parametrize("relative_pull", [1e-7, 1e-5, 1e-3, 0.1, 0.5, 2.0, 10.0, 1e3])
@pytest.mark.parametrize("sign", [1, -1])
def test_float32_is_right_for_every_size_of_z_and_of_the_step(p, relative_pull, sign):
    z = np.geomspace(1e-8, 1e3, 1001).astype(np.float32)
    z[::2] *= -1
    with np.errstate(over="ignore", under="ignore"):
        pull = (np.abs(z.astype(np.longdouble)) ** (p - 1) * sign * relative_pull).astype(np.float32)
    representable = np.isfinite(pull) & (np.abs(pull) > 1e-37)
    dual = lpoptax.mirror_descent(1.0, p)
    moved, _ = dual.update(jnp.asarray(pull), dual.init(z), jnp.asarray(z))
    expected = exact_step(z, pull, p)
    # At p = 16 the logarithm of |z|^15 is up to 400, so that its rounding is 1.5e-5 of the power; a
    # difference of near numbers comes on top where the two terms are of like size.
    np.testing.assert_allclose(moved[representable], expected[representable].astype(float), rtol=3e-5)


@pytest.mark.parametrize("p", [1.1, 1.2, 1.5, 1.9, 2.1, 3.0, 6.0, 9.0, 12.0, 16.0])
def test_float32_is_right_to_1e_5_where_the_terms_do_not_cancel(p):
    rng = np.random.default_rng(0)
    z = (10 ** rng.uniform(-8, 3, 100_000) * rng.choice([-1, 1], 100_000)).astype(np.float32)
    ratio = 10 ** rng.uniform(-8, 6, z.shape) * rng.choice([-1, 1], z.shape)
    with np.errstate(over="ignore", under="ignore"):
        pull = (np.sign(z) * np.abs(z.astype(np.longdouble)) ** (p - 1) * ratio).astype(np.float32)
    apart = np.abs(1 - ratio) > 0.1 * np.maximum(1, np.abs(ratio))
    meant = apart & (np.abs(pull) > 1.2e-38) & np.isfinite(pull)
    assert meant.sum() > 30_000
    z, pull = z[meant], pull[meant]
    exact = exact_step(z, pull, p)
    after = np.abs(exact + z)
    dual = lpoptax.mirror_descent(1.0, p)
    moved, _ = jax.jit(dual.update)(jnp.asarray(pull), dual.init(z), jnp.asarray(z))
    error = np.abs(np.asarray(moved) - exact) / np.maximum(after, np.abs(z))
    assert np.max(error[after < 3e38]) < 1e-5


def test_the_formula_as_written_underflows():
    # The reason for the form that is used: z would be lost, whatever the gradient.
    z = jnp.float32(1e-6)
    w = jnp.abs(z) ** 7 * z - 0.0
    assert float(jnp.sign(w) * jnp.abs(w) ** (1 / 8)) == 0.0
    assert float(step(z, jnp.float32(0), 0.1, 9.0)) == pytest.approx(1e-6, rel=1e-7)


@pytest.mark.parametrize("p", [1.1, 1.5, 2.0, 3.0, 9.0, 16.0])
def test_a_zero_gradient_moves_nothing(p):
    # Written as in the formula, |z|^(p-1) underflows here and z' would be 0.
    z = jnp.concatenate([jnp.geomspace(1e-8, 1e3, 12), jnp.zeros(1)])
    chex.assert_trees_all_close(step(z, jnp.zeros(13), 0.1, p), z, rtol=1e-6)


@pytest.mark.parametrize("p", [3.0, 9.0, 16.0])
def test_a_start_at_zero_moves_by_the_root_of_the_gradient(p):
    g = jnp.array([1e-30, 1e-3, -2.0])
    expected = -np.sign(g) * (0.1 * np.abs(np.asarray(g, np.float64))) ** (1 / (p - 1))
    np.testing.assert_allclose(step(jnp.zeros(3), g, 0.1, p), expected, rtol=1e-5)


@pytest.mark.parametrize("p", [2.0, 3.0])
@pytest.mark.parametrize("gradient_dtype", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_updates_have_the_dtype_of_the_params(p, gradient_dtype, dtype):
    z, g = jnp.ones(2, dtype), jnp.ones(2, gradient_dtype)
    dual = lpoptax.mirror_descent(0.1, p)
    updates, _ = dual.update(g, dual.init(z), z)
    assert updates.dtype == dtype


def test_p_2_is_gradient_descent_exactly():
    z, g = jnp.array([1.0, -2.0, 0.3]), jnp.array([0.1, 0.2, -0.7])
    dual = lpoptax.mirror_descent(0.1)
    updates, _ = dual.update(g, dual.init(z), z)
    chex.assert_trees_all_equal(updates, -0.1 * g)


def test_it_is_continuous_at_p_2():
    z, g = jnp.array([1.0, -2.0, 0.3]), jnp.array([0.1, 0.2, -0.7])
    chex.assert_trees_all_close(step(z, g, 0.1, 2 + 1e-6), step(z, g, 0.1, 2.0), rtol=1e-5)
    # A traced p takes the general path.
    chex.assert_trees_all_close(
        jax.jit(step, static_argnums=2)(z, g, 0.1, jnp.float32(2.0)), step(z, g, 0.1, 2.0), rtol=1e-6
    )


def test_complex_numbers_turn_towards_the_gradient():
    z, g = jnp.array([1 + 1j, 0j, 2 - 1j], jnp.complex64), jnp.array([0.5 - 2j, 3j, 0j], jnp.complex64)
    stepped = step(z, g, 0.1, 3.0)
    w = np.abs(z) * np.asarray(z) - 0.1 * np.asarray(g)
    np.testing.assert_allclose(stepped, w / np.sqrt(np.abs(w)), rtol=1e-5)


def test_small_steps_add_up():
    # Each step is below the resolution of the difference of the two powers in float32.
    z, total = jnp.float32(1.0), 0.0
    dual = lpoptax.mirror_descent(1.0, 3.0)
    state = dual.init(z)
    for _ in range(100):
        moved, state = dual.update(jnp.float32(3e-8), state, z)
        total += float(moved)
    assert total == pytest.approx(-100 * 1.5e-8, rel=1e-5)


def test_p_and_alpha_follow_schedules():
    dual = lpoptax.mirror_descent(lambda step: 0.1 * (step + 1), lambda step: 3.0 - step)
    z, g = jnp.array([1.0, 0.5]), jnp.array([0.2, -0.3])
    state = dual.init(z)
    expected = np.asarray(z, np.float64)
    for alpha, p in ((0.1, 3.0), (0.2, 2.0)):
        updates, state = dual.update(g, state, z)
        z = z + updates
        expected = reference.mirror(expected, np.asarray(g, np.float64), alpha, p)
    np.testing.assert_allclose(z, expected, rtol=1e-6)


@pytest.mark.parametrize("bad", [1.0, 0.0, np.inf, float("nan")])
def test_a_p_without_a_mirror_map_is_refused(bad):
    with pytest.raises(ValueError, match="p must be greater than 1 and finite, got p="):
        lpoptax.mirror_descent(0.1, bad)


def test_a_negative_alpha_is_refused():
    with pytest.raises(ValueError, match="alpha must be non-negative and finite, got alpha=-0.1"):
        lpoptax.mirror_descent(-0.1)


def test_an_update_without_params_is_refused():
    dual = lpoptax.mirror_descent(0.1)
    with pytest.raises(ValueError, match="params must be passed to update, got params=None"):
        dual.update(jnp.ones(2), dual.init(jnp.ones(2)))


@pytest.mark.parametrize("p", [1.3, 2.5, 6.0])
def test_the_step_has_the_derivatives_of_the_formula(p):
    def formula(z, g, p):
        w = jnp.abs(z) ** (p - 2) * z - 0.1 * g
        return jnp.sum(jnp.real(w * jnp.abs(w) ** (1 / (p - 1) - 1)))

    def ours(z, g, p):
        return jnp.sum(jnp.real(step(z, g, 0.1, p)))

    with enable_x64(True):
        z, g = jnp.array([1.3, -0.7, 0.4]), jnp.array([0.2, 0.9, -3.0])
        for turn in (1.0, 0.6 + 0.8j):
            arguments = (turn * z, g * (1 + 0.5 * (turn - 1)), jnp.asarray(p))
            derivatives = jax.grad(ours, argnums=(0, 1, 2))(*arguments)
            expected = jax.grad(formula, argnums=(0, 1, 2))(*arguments)
            chex.assert_trees_all_close(derivatives, expected, rtol=1e-8)


@pytest.mark.parametrize("p", [1.5, 3.0, 16.0])
@pytest.mark.parametrize("z", [0.0, 1e-6, 1.0, 1e3, 1e9])
def test_what_is_no_finite_gradient_is_no_finite_step(z, p):
    dual = lpoptax.mirror_descent(1.0, p)
    g = jnp.array([jnp.inf, -jnp.inf, jnp.nan])
    stepped, _ = dual.update(g, dual.init(g), jnp.full(3, z))
    np.testing.assert_array_equal(stepped, [-np.inf, np.inf, np.nan])
    undefined, _ = dual.update(jnp.ones(1), dual.init(g), jnp.array([jnp.nan]))
    assert np.isnan(undefined)


@pytest.mark.parametrize("p", [3.0, 9.0])
def test_forward_derivatives_are_finite_where_the_gradient_is_zero(p):
    def stepped(z, g):
        return step(z, g, 0.1, p)

    z = jnp.array([1e-6, 1.0])
    _, slope = jax.jvp(lambda z: stepped(z, jnp.zeros(2)), (z,), (jnp.ones(2),))
    np.testing.assert_allclose(slope, 1, rtol=1e-5)
    assert np.all(np.isfinite(jax.jvp(stepped, (jnp.zeros(2),) * 2, (jnp.ones(2),) * 2)[1]))
