"""LPSGD, stochastic lp descent, GSGD and LPSGDM against references and Optax."""

import chex
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given

import lpoptax
from tests import reference
from tests.helpers import enable_x64, random_problem, trajectory

P = st.one_of(st.floats(1.2, 32.0), st.just(np.inf))


SEED = st.integers(0, 2**32 - 1)


@given(seed=SEED, momentum=st.sampled_from([0.0, 0.9]), weight_decay=st.sampled_from([None, 0.1]))
def test_lpsgdm_at_p_2_is_momentum_sgd_with_decoupled_decay_bit_for_bit(seed, momentum, weight_decay):
    params, gradients = random_problem(seed, steps=3)
    expected = sgd_with_moving_average(0.1, momentum, weight_decay)
    ours = lpoptax.lpsgdm(0.1, p=2.0, momentum=momentum, weight_decay=weight_decay)
    chex.assert_trees_all_equal(
        trajectory(ours, params, gradients, jit=False), trajectory(expected, params, gradients, jit=False)
    )


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [None, 0.1])
def test_lpsgdm_at_p_2_is_momentum_sgd_bit_for_bit_under_jit(momentum, weight_decay):
    params, gradients = random_problem()
    schedule = optax.cosine_decay_schedule(0.1, 25)
    expected = sgd_with_moving_average(schedule, momentum, weight_decay)
    ours = lpoptax.lpsgdm(schedule, p=2.0, momentum=momentum, weight_decay=weight_decay)
    chex.assert_trees_all_equal(trajectory(ours, params, gradients), trajectory(expected, params, gradients))


def sgd_with_moving_average(learning_rate, momentum, weight_decay):
    return optax.chain(
        optax.ema(momentum, debias=False),
        optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity(),
        optax.scale_by_learning_rate(learning_rate),
    )


@given(seed=SEED)
def test_lpsgd_at_p_2_is_sgd_and_at_p_infinity_sign_sgd_bit_for_bit(seed):
    params, gradients = random_problem(seed, steps=3)
    for ours, theirs in (
        (lpoptax.lpsgd(0.1, p=2.0), optax.sgd(0.1)),
        (lpoptax.lpsgd(0.1, p=jnp.inf, eps=0.0), optax.sign_sgd(0.1)),
    ):
        chex.assert_trees_all_equal(
            trajectory(ours, params, gradients, jit=False), trajectory(theirs, params, gradients, jit=False)
        )


@given(seed=SEED, weight_decay=st.sampled_from([None, 0.1]))
def test_lpsgdm_at_p_infinity_is_signum_with_decoupled_decay_bit_for_bit(seed, weight_decay):
    params, gradients = random_problem(seed, steps=3)
    ours = lpoptax.lpsgdm(0.1, p=jnp.inf, eps=0.0, weight_decay=weight_decay)
    # optax.signum, which Optax 0.2.6 lacks.
    signum = optax.chain(
        optax.ema(0.9, debias=False),
        optax.scale_by_sign(),
        optax.add_decayed_weights(weight_decay or 0.0),
        optax.scale(-0.1),
    )
    chex.assert_trees_all_equal(
        trajectory(ours, params, gradients, jit=False), trajectory(signum, params, gradients, jit=False)
    )


@given(
    seed=SEED,
    p=P,
    momentum=st.sampled_from([0.0, 0.9]),
    eps=st.sampled_from([0.0, 1e-8, 1e-3]),
    weight_decay=st.sampled_from([0.0, 0.1]),
)
def test_lpsgdm_equals_the_formulas_in_float64(seed, p, momentum, eps, weight_decay):
    with enable_x64(True):
        params, gradients = random_problem(seed, steps=5, dtype=jnp.float64)
        optimizer = lpoptax.lpsgdm(0.01, p, momentum=momentum, eps=eps, weight_decay=weight_decay)
        visited = trajectory(optimizer, params, gradients, jit=False)
        for leaf in ("w", "b"):
            expected = reference.lpsgdm(
                np.asarray(params[leaf]),
                [np.asarray(g[leaf]) for g in gradients],
                0.01,
                lambda step: p,
                momentum,
                eps,
                weight_decay,
            )
            for ours, theirs in zip(visited, expected, strict=True):
                np.testing.assert_allclose(ours[leaf], theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("schedule", "p_of_step"),
    [
        (lpoptax.cosine_p_schedule(6.0, 20), lambda s: 4 + 2 * np.cos(np.pi * min(s, 19) / 19)),
        (
            lpoptax.cosine_p_schedule(6.0, 20, steps_per_epoch=5),
            lambda s: 4 + 2 * np.cos(np.pi * min(s // 5, 3) / 3),
        ),
        (lpoptax.gradual_p_schedule(20), lambda s: np.inf if s == 0 else 1 + 20 / min(s, 20)),
    ],
    ids=["lpsgd per step", "lpsgd per epoch", "gsgd"],
)
def test_scheduled_p_follows_the_schedule_from_step_0(schedule, p_of_step):
    with enable_x64(True):
        params, gradients = random_problem(dtype=jnp.float64)
        visited = trajectory(lpoptax.lpsgd(0.01, schedule), params, gradients)
        expected = reference.lpsgdm(
            np.asarray(params["w"]),
            [np.asarray(g["w"]) for g in gradients],
            0.01,
            p_of_step,
            momentum=0.0,
            eps=1e-8,
            weight_decay=0.0,
        )
        for ours, theirs in zip(visited, expected, strict=True):
            np.testing.assert_allclose(ours["w"], theirs, rtol=1e-9)


def test_the_momentum_has_the_accumulator_dtype_and_updates_that_of_the_gradient():
    params = jnp.ones(3, jnp.bfloat16)
    optimizer = lpoptax.lpsgdm(0.1, 3.0, accumulator_dtype=jnp.float32)
    updates, state = optimizer.update(params, optimizer.init(params))
    assert updates.dtype == jnp.bfloat16
    assert optax.tree.get(state, "mu").dtype == jnp.float32


def test_the_mask_selects_what_decays():
    params, gradients = random_problem(steps=1)
    mask = {"w": True, "b": False}
    for given_mask in (mask, lambda params: mask):
        for factory in (lpoptax.lpsgd, lpoptax.lpsgdm, lpoptax.stacey):
            masked = factory(0.1, 3.0, weight_decay=0.5, weight_decay_mask=given_mask)
            plain = factory(0.1, 3.0)
            (ours,), (without,) = (trajectory(one, params, gradients) for one in (masked, plain))
            decayed = without["w"] - 0.1 * 0.5 * params["w"]
            chex.assert_trees_all_close(ours, {"w": decayed, "b": without["b"]}, rtol=1e-5)


@pytest.mark.parametrize("weight_decay", [None, 0, 0.0])
def test_without_decay_no_params_are_needed(weight_decay):
    for optimizer in (
        lpoptax.lpsgd(0.1, 3.0, weight_decay=weight_decay),
        lpoptax.lpsgdm(0.1, 3.0, weight_decay=weight_decay),
    ):
        optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p": 1.0}, "p must be greater than 1 .*, got p=1.0"),
        ({"eps": -1.0}, "eps must be non-negative and finite, got eps=-1.0"),
        ({"weight_decay": -0.1}, "weight_decay must be non-negative and finite, got weight_decay=-0.1"),
        ({"momentum": 1.0}, "momentum must be at least 0 and below 1, got momentum=1.0"),
        ({"momentum": -0.1}, "momentum must be at least 0 and below 1, got momentum=-0.1"),
    ],
)
def test_numbers_outside_their_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        lpoptax.lpsgdm(0.1, **{"p": 3.0, **arguments})
    if "momentum" not in arguments:
        with pytest.raises(ValueError, match=message):
            lpoptax.lpsgd(0.1, **{"p": 3.0, **arguments})
