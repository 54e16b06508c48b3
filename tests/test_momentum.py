"""The interpolated momentum against its formula and Optax's moving average."""

import chex
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lpoptax
from tests.helpers import random_problem


def run(transformation, params, gradients):
    state = transformation.init(params)
    emitted = []
    for g in gradients:
        updates, state = transformation.update(g, state)
        emitted.append(updates)
    return emitted, state


@pytest.mark.parametrize(("b1", "b2"), [(0.6, 0.9), (0.9, 0.6), (0.6, 0.0)])
def test_it_emits_with_b1_and_remembers_with_b2(b1, b2):
    params, gradients = random_problem()
    emitted, state = run(lpoptax.scale_by_interpolated_momentum(b1, b2), params, gradients)
    m = np.zeros((3, 2))
    for c, g in zip(emitted, gradients, strict=True):
        g = np.asarray(g["w"], np.float64)
        np.testing.assert_allclose(c["w"], b1 * m + (1 - b1) * g, rtol=1e-5, atol=1e-8)
        m = b2 * m + (1 - b2) * g
    np.testing.assert_allclose(state.mu["w"], m, rtol=1e-5, atol=1e-8)


def test_equal_rates_are_an_exponential_moving_average_bit_for_bit():
    params, gradients = random_problem()
    ours, _ = run(lpoptax.scale_by_interpolated_momentum(b1=0.9, b2=0.9), params, gradients)
    emas, _ = run(optax.ema(0.9, debias=False), params, gradients)
    chex.assert_trees_all_equal(ours, emas)


@pytest.mark.parametrize("gradient_dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("mu_dtype", [jnp.bfloat16, jnp.float32])
def test_updates_keep_the_gradient_dtype_and_the_state_its_own(gradient_dtype, mu_dtype):
    transformation = lpoptax.scale_by_interpolated_momentum(mu_dtype=mu_dtype)
    g = jnp.ones(3, gradient_dtype)
    state = transformation.init(g)
    for _ in range(2):
        updates, state = transformation.update(g, state)
        assert updates.dtype == gradient_dtype
        assert state.mu.dtype == mu_dtype


def test_missing_gradients_leave_their_momentum_alone():
    transformation = lpoptax.scale_by_interpolated_momentum()
    params = {"a": jnp.ones(2), "b": None, "c": jnp.ones(3)}
    state = transformation.init(params)
    updates, state = transformation.update({"a": jnp.ones(2), "b": None, "c": None}, state)
    assert updates["b"] is None
    assert updates["c"] is None
    chex.assert_trees_all_equal(state.mu["c"], jnp.zeros(3))


@pytest.mark.parametrize("name", ["b1", "b2"])
@pytest.mark.parametrize("bad", [-0.1, 1.0, 1.5, float("nan")])
def test_a_rate_outside_0_to_1_is_refused(name, bad):
    with pytest.raises(ValueError, match=f"{name} must be at least 0 and below 1, got {name}="):
        lpoptax.scale_by_interpolated_momentum(**{name: bad})
