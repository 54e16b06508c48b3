"""The power map: what it equals, where it holds, and that it is never nan."""

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

HALF_AND_SINGLE = (jnp.float16, jnp.bfloat16, jnp.float32)
FINITE_P = st.floats(1.05, 64.0)
ANY_P = st.one_of(FINITE_P, st.just(np.inf))
MAGNITUDES = st.floats(1e-6, 1e3)


def extreme_values(dtype):
    """Zero, subnormals, the ends of the normal range, and points between, of both signs."""
    limits = jnp.finfo(dtype)
    subnormals = [limits.smallest_subnormal, limits.tiny / 2]
    normals = [limits.tiny, 1e-3, 0.5, 1.0, 1.5, 3.0, float(limits.max) ** 0.5, limits.max]
    positive = np.array([float(value) for value in [0.0, *subnormals, *normals]])
    return jnp.concatenate([jnp.asarray(positive, dtype), jnp.asarray(-positive, dtype)])


@pytest.mark.parametrize("dtype", HALF_AND_SINGLE)
@pytest.mark.parametrize("jit", [True, False])
def test_p_2_is_the_identity_bit_for_bit(dtype, jit):
    x = jnp.concatenate([extreme_values(dtype), jax.random.normal(jax.random.key(0), (1000,), dtype)])
    power = jax.jit(lpoptax.lp_power) if jit else lpoptax.lp_power
    for eps in (0.0, 1e-8, 1.0):
        u = power(x, 2.0, eps)
        assert u.dtype == dtype
        # Bytes, so that a flushed subnormal or a lost sign of zero would show.
        assert np.asarray(u).tobytes() == np.asarray(x).tobytes()


@pytest.mark.parametrize("dtype", HALF_AND_SINGLE)
def test_p_infinity_without_eps_is_the_sign(dtype):
    x = jax.random.normal(jax.random.key(0), (1000,), dtype).at[0].set(0)
    chex.assert_trees_all_equal(lpoptax.lp_power(x, jnp.inf, 0.0), jnp.sign(x))
    chex.assert_trees_all_equal(jax.jit(lpoptax.lp_power)(x, jnp.inf, 0.0), jnp.sign(x))
    assert lpoptax.lp_power(jnp.finfo(dtype).max, jnp.inf, 0.0) == 1


ANY_FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(x=ANY_FLOAT32, eps=st.floats(0, 1e3))
def test_p_2_gives_back_any_number(x, eps):
    x = jnp.asarray(np.float32(x))
    assert np.asarray(lpoptax.lp_power(x, 2.0, eps)).tobytes() == np.asarray(x).tobytes()


@given(x=st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False))
def test_p_infinity_gives_the_sign_of_any_number(x):
    x = jnp.asarray(np.float32(x))
    chex.assert_trees_all_equal(lpoptax.lp_power(x, jnp.inf, 0.0), jnp.sign(x))


@given(x=MAGNITUDES, delta=st.floats(1e-5, 1e-2))
def test_the_family_is_continuous_at_p_2(x, delta):
    slope = x * abs(np.log(x))  # of u in p, at p = 2
    u = lpoptax.lp_power(jnp.float32(x), 2 + delta, 0.0)
    assert abs(float(u) - x) <= 1.1 * slope * delta + 1e-6 * x


@given(x=MAGNITUDES, delta=st.floats(1e-5, 1e-2))
def test_the_family_is_continuous_at_p_infinity(x, delta):
    u = lpoptax.lp_power(jnp.float32(x), 1 / delta, 0.0)
    assert abs(float(u) - 1) <= 1.2 * abs(np.log(x)) * delta + 1e-6


@given(x=MAGNITUDES, a=st.floats(1e-3, 1e3), p=st.one_of(st.floats(1.2, 64.0), st.just(np.inf)))
def test_it_is_positively_homogeneous_of_degree_one_over_p_minus_1(x, a, p):
    scaled = lpoptax.lp_power(jnp.float32(a * x), p, 0.0)
    expected = a ** (1 / (p - 1)) * float(lpoptax.lp_power(jnp.float32(x), p, 0.0))
    assume(1e-35 < expected < 1e35)
    # |u| has 1 / (p - 1) times the relative error of x, which is rounded to float32.
    assert float(scaled) == pytest.approx(expected, rel=1e-6 + 3e-7 / (p - 1))


@given(x=st.floats(-1e3, 1e3), p=ANY_P)
def test_it_is_odd(x, p):
    chex.assert_trees_all_equal(lpoptax.lp_power(jnp.float32(-x), p), -lpoptax.lp_power(jnp.float32(x), p))


@given(
    # XLA flushes subnormal numbers to zero on some platforms.
    x=st.lists(st.floats(-1e3, 1e3, allow_subnormal=False), min_size=1, max_size=8).map(np.array),
    p=ANY_P,
    eps=st.sampled_from([0.0, 1e-8, 1e-3]),
)
def test_it_equals_the_formula_in_float64(x, p, eps):
    with enable_x64(True):
        u = np.asarray(lpoptax.lp_power(jnp.asarray(x, jnp.float64), p, eps))
    # The reference overflows for a p near 1; ours must do the same, not something else.
    with np.errstate(over="ignore", divide="ignore"):
        expected = reference.power(x, p, eps)
    np.testing.assert_allclose(u, expected, rtol=1e-11, atol=1e-290)


@pytest.mark.parametrize("p", [1.1, 1.5, 3.0, 6.0, 100.0, np.inf])
def test_float32_error_is_a_few_units_in_the_last_place(p):
    x = np.geomspace(1e-8, 1e2, 20_001).astype(np.float32)
    expected = reference.power(x, p)
    inside = (expected > 1e-37) & (expected < 1e38)
    error = np.abs(np.asarray(lpoptax.lp_power(jnp.asarray(x), p)) / expected - 1)[inside]
    # The rounding of 1 / (p - 1) is multiplied by log(x), at most 18 here.
    assert error.max() < 3e-7 + 18 * 6e-8 / (p - 1)


@pytest.mark.parametrize("dtype", HALF_AND_SINGLE)
@pytest.mark.parametrize("jit", [True, False])
def test_no_finite_input_gives_nan(dtype, jit):
    x = extreme_values(dtype)
    power = jax.jit(lpoptax.lp_power) if jit else lpoptax.lp_power
    for p in (1.01, 1.1, 1.5, 1.999, 2.0, 2.001, 3.0, 6.0, 1e3, 1e30, np.inf):
        for eps in (0.0, 1e-45, 1e-38, 1e-8, 1.0, 10.0, 1e30, 3e38):
            u = power(x, p, eps)
            assert not jnp.isnan(u).any(), (p, eps, x[jnp.isnan(u)])
            if p >= 2:
                chex.assert_tree_all_finite(u)


@given(x=ANY_FLOAT32, p=st.floats(1.01, 1e6), eps=st.floats(0, 1e10))
def test_no_finite_float32_gives_nan(x, p, eps):
    assert not jnp.isnan(lpoptax.lp_power(jnp.float32(x), p, eps))


@pytest.mark.parametrize("p", [1.01, 1.5, 2.0, 3.0, np.inf])
@pytest.mark.parametrize("eps", [0.0, 1e-8, 10.0])
def test_zero_maps_to_zero(p, eps):
    chex.assert_trees_all_equal(lpoptax.lp_power(jnp.zeros(2), p, eps), jnp.zeros(2))


def test_half_precision_is_computed_in_float32():
    # In float16 the default eps is 0 and a sum with it is lost.
    x = jnp.asarray([6e-8, 1e-4, 0.5, 60000.0], jnp.float16)
    wide = lpoptax.lp_power(x.astype(jnp.float32), 6.0).astype(jnp.float16)
    chex.assert_trees_all_equal(lpoptax.lp_power(x, 6.0), wide)


@pytest.mark.parametrize("p", [1.5, 2.0, 3.0, np.inf])
def test_complex_numbers_keep_their_phase(p):
    x = jnp.asarray([3 + 4j, -1e-3j, 0, -2 + 0j], jnp.complex64)
    u = lpoptax.lp_power(x, p)
    assert u.dtype == x.dtype
    chex.assert_trees_all_close(jnp.abs(u), lpoptax.lp_power(jnp.abs(x), p), rtol=1e-6)
    chex.assert_trees_all_close(u * jnp.abs(x), x * jnp.abs(u), rtol=1e-6)


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [*HALF_AND_SINGLE, jnp.complex64])
def test_shape_and_dtype_are_kept(shape, dtype):
    x = jnp.ones(shape, dtype)
    chex.assert_trees_all_equal_shapes_and_dtypes(lpoptax.lp_power(x, 3.0), x)


def test_integers_become_floats():
    chex.assert_trees_all_close(
        lpoptax.lp_power(jnp.array([4, 0, -9]), 3.0, 0.0), jnp.array([2.0, 0.0, -3.0])
    )


@pytest.mark.parametrize("p", [1.5, 2.0, 3.0, 9.0, np.inf])
def test_the_derivatives_are_those_of_finite_differences(p):
    with enable_x64(True):
        x = jnp.array([-1.7, -0.2, 0.3, 2.5])
        chex.assert_numerical_grads(lambda x: lpoptax.lp_power(x, p, 1e-3), (x,), order=2, atol=1e-5)
        chex.assert_numerical_grads(
            lambda eps: lpoptax.lp_power(x, p, eps), (jnp.array(1e-2),), order=1, atol=1e-5
        )
        if np.isfinite(p):
            chex.assert_numerical_grads(lambda p: lpoptax.lp_power(x, p), (jnp.array(p),), order=1, atol=1e-5)


@pytest.mark.parametrize("p", [1.5, 2.0, 3.0, np.inf])
def test_the_derivative_of_complex_numbers_is_that_of_finite_differences(p):
    def length(re, im):
        return jnp.abs(lpoptax.lp_power(jax.lax.complex(re, im), p, 1e-2) - (0.3 + 0.1j))

    with enable_x64(True):
        parts = (jnp.float64(0.4), jnp.float64(-0.7))
        chex.assert_numerical_grads(length, parts, order=1, atol=1e-5)


@pytest.mark.parametrize("p", [1.5, 2.0, 3.0, np.inf])
@pytest.mark.parametrize("eps", [0.0, 1e-8])
def test_the_derivative_is_finite_at_zero_and_near_it(p, eps):
    x = jnp.array([0.0, 1e-38, -1e-30, 1e-20])
    chex.assert_tree_all_finite(jax.vmap(jax.grad(lambda x: lpoptax.lp_power(x, p, eps)))(x))


def test_the_slope_at_zero_is_set_by_eps():
    slope = jax.grad(lambda x: lpoptax.lp_power(x, 3.0, 1e-4))(0.0)
    assert float(slope) == pytest.approx(1e2, rel=1e-5)


def test_many_p_run_in_one_compiled_program():
    x = jnp.linspace(-2.0, 2.0, 9)
    p = jnp.array([1.5, 2.0, 3.0, jnp.inf])
    together = jax.jit(jax.vmap(lpoptax.lp_power, in_axes=(None, 0)))(x, p)
    for row, one in zip(together, p.tolist(), strict=True):
        chex.assert_trees_all_close(row, lpoptax.lp_power(x, one), rtol=1e-6)


@pytest.mark.parametrize("bad", [1.0, 0.5, -3.0, 1, float("nan"), np.float32(1.0), -np.inf])
def test_a_p_of_1_or_less_is_refused(bad):
    with pytest.raises(ValueError, match=r"p must be greater than 1 .*, got p="):
        lpoptax.lp_power(jnp.ones(2), bad)


@pytest.mark.parametrize("bad", [None, "3", [3.0], lpoptax.cosine_p_schedule(6.0, 10)])
def test_a_p_that_is_no_number_is_refused(bad):
    with pytest.raises(ValueError, match=r"p must be greater than 1 .*, got p="):
        lpoptax.lp_power(jnp.ones(2), bad)


@pytest.mark.parametrize("bad", [-1e-8, float("nan"), np.inf])
def test_a_negative_or_infinite_eps_is_refused(bad):
    with pytest.raises(ValueError, match="eps must be non-negative and finite, got eps="):
        lpoptax.lp_power(jnp.ones(2), 3.0, bad)


def every_exponent():
    """Returns positive float32 numbers: all exponents of normal ones, each with 4,085 or more mantissas."""
    # The last three are around sqrt(2).
    mantissas = np.r_[np.arange(0, 2**23, 2053), 2**23 - 1, 0x3504F2, 0x3504F3, 0x3504F4]
    bits = (np.arange(1, 255)[:, None] << 23) | mantissas
    return bits.astype(np.int32).view(np.float32).ravel()


@pytest.mark.parametrize("is_traced", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("p", [1.05, 1.1, 1.5, 1.9, 2.0001, 2.003, 2.8, 3.0, 4.0, 6.0, 9.0, 1e3, 1e6])
def test_every_float32_is_mapped_to_the_error_that_is_promised(p, is_traced):
    x = every_exponent()
    given = jnp.float32(p) if is_traced else p
    found = np.asarray(
        jax.jit(lpoptax.lp_power, static_argnames=() if is_traced else "p")(x, p=given, eps=0.0)
    )
    exact = x.astype(np.longdouble) ** (1 / (np.longdouble(given) - 1))
    normal = (exact > np.finfo(np.float32).tiny) & (exact < np.finfo(np.float32).max)
    error = np.zeros(x.shape)
    error[normal] = np.abs(found[normal] / exact[normal] - 1)
    assert np.max(error) < (3e-6 if p >= 2 else 7e-6 + 1e-7 / (p - 1))
    if p >= 2:
        assert np.max(error[(x >= 1e-8) & (x <= 100)]) < 1e-6
    assert np.all(found[exact < 1e-38] == 0)
    assert np.all(found[exact > 3.5e38] == np.inf)


@pytest.mark.parametrize("p", [1.5, 3.0, jnp.inf])
def test_what_is_infinite_or_undefined_is_undefined(p):
    x = jnp.array([jnp.inf, -jnp.inf, jnp.nan])
    assert np.all(np.isnan(lpoptax.lp_power(x, p)))
    assert np.all(np.isnan(lpoptax.lp_power(jnp.array([0.3, 2.0]), jnp.float32(jnp.nan))))


def test_zero_keeps_its_sign():
    for p in (1.5, 2.0, 3.0, jnp.inf):
        assert np.array_equal(np.signbit(lpoptax.lp_power(jnp.array([-0.0, 0.0]), p)), [True, False])


def test_a_schedule_gives_each_step_its_p():
    transformation, x = lpoptax.scale_by_lp_power(lambda count: 2.0 + count), jnp.array([0.5, -2.0])
    state = transformation.init(x)
    for p in (2.0, 3.0, 4.0):
        power, state = transformation.update(x, state)
        np.testing.assert_allclose(power, lpoptax.lp_power(x, p), rtol=1e-6)
