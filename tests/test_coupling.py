"""The coupling of any two optimizers."""

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

import lpoptax
from tests.helpers import random_problem, trajectory


def test_it_averages_the_two_iterates():
    params, gradients = random_problem()
    primal, dual = optax.adamw(0.1), optax.sgd(0.01, momentum=0.9)
    coupled = lpoptax.stacey_coupling(primal, dual, tau=0.25)
    theta, z = params, params
    primal_state, dual_state = primal.init(params), dual.init(params)
    for g, ours in zip(gradients, trajectory(coupled, params, gradients), strict=True):
        updates, primal_state = primal.update(g, primal_state, theta)
        y = optax.apply_updates(theta, updates)
        updates, dual_state = dual.update(g, dual_state, z)
        z = optax.apply_updates(z, updates)
        theta = jax.tree.map(lambda z, y: 0.25 * z + 0.75 * y, z, y)
        chex.assert_trees_all_close(ours, theta, rtol=1e-5, atol=1e-6)


def test_stacey_is_the_coupling_of_its_public_parts():
    params, gradients = random_problem()
    learning_rate, weight_decay = 0.05, 0.1
    by_hand = optax.chain(
        lpoptax.scale_by_interpolated_momentum(0.9, 0.99),
        lpoptax.stacey_coupling(
            primal=optax.chain(lpoptax.scale_by_lp_power(3.0), optax.scale_by_learning_rate(learning_rate)),
            dual=lpoptax.mirror_descent(0.1, 3.0),
            tau=0.1,
        ),
        optax.add_decayed_weights(-learning_rate * weight_decay),
    )
    alias = lpoptax.stacey(learning_rate, 3.0, 3.0, alpha=0.1, tau=0.1, weight_decay=weight_decay)
    # The compiler may round a product and a sum together in one program and not in the other.
    chex.assert_trees_all_close(
        trajectory(alias, params, gradients), trajectory(by_hand, params, gradients), rtol=1e-6
    )


def test_the_dual_iterate_starts_as_a_copy_of_the_params():
    params = {"a": jnp.ones(3)}
    state = lpoptax.stacey_coupling(optax.sgd(0.1), lpoptax.mirror_descent(0.1), 0.1).init(params)
    chex.assert_trees_all_equal(state.z, params)
    assert state.z["a"].unsafe_buffer_pointer() != params["a"].unsafe_buffer_pointer()


def test_tau_0_is_the_primal_and_tau_1_the_dual_alone():
    params, gradients = random_problem()
    primal, dual = optax.adamw(0.1), lpoptax.mirror_descent(0.01, 3.0)
    # The compiler may round a product and a sum together in one program and not in the other.
    chex.assert_trees_all_close(
        trajectory(lpoptax.stacey_coupling(primal, dual, 0.0), params, gradients),
        trajectory(primal, params, gradients),
        rtol=1e-5,
        atol=1e-6,
    )
    chex.assert_trees_all_close(
        trajectory(lpoptax.stacey_coupling(primal, dual, 1.0), params, gradients),
        trajectory(dual, params, gradients),
        rtol=1e-5,
        atol=1e-6,
    )


def test_extra_arguments_reach_both_parts():
    received = []

    def part(name):
        def update(updates, state, params=None, **extra_args):
            received.append((name, extra_args))
            return updates, state

        return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)

    coupled = lpoptax.stacey_coupling(part("primal"), part("dual"), 0.5)
    coupled.update(jnp.ones(2), coupled.init(jnp.ones(2)), jnp.ones(2), value=3.0)
    assert received == [("primal", {"value": 3.0}), ("dual", {"value": 3.0})]


def test_missing_gradients_stay_missing():
    params = {"a": jnp.ones(2), "b": None, "c": jnp.ones(3)}
    g = {"a": jnp.ones(2), "b": None, "c": None}
    optimizer = lpoptax.stacey_coupling(optax.sgd(0.1), lpoptax.mirror_descent(0.1, 3.0), 0.5)
    updates, state = optimizer.update(g, optimizer.init(params), params)
    assert updates["b"] is None
    assert updates["c"] is None
    chex.assert_trees_all_equal(state.z["c"], params["c"])


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_a_tau_outside_0_to_1_is_refused(bad):
    with pytest.raises(ValueError, match="tau must be between 0 and 1, got tau="):
        lpoptax.stacey_coupling(optax.sgd(0.1), optax.sgd(0.1), bad)


def test_an_update_without_params_is_refused():
    coupled = lpoptax.stacey_coupling(optax.sgd(0.1), optax.sgd(0.1), 0.5)
    with pytest.raises(ValueError, match="params must be passed to update, got params=None"):
        coupled.update(jnp.ones(2), coupled.init(jnp.ones(2)))


def test_the_dual_iterate_may_have_more_precision_than_the_params():
    params = {"a": jnp.ones(2, jnp.bfloat16)}
    coupled = lpoptax.stacey_coupling(optax.sgd(0.1), lpoptax.mirror_descent(1e-3), 0.5, z_dtype=jnp.float32)
    state = coupled.init(params)
    for _ in range(10):
        updates, state = coupled.update(params, state, params)
    assert updates["a"].dtype == jnp.bfloat16
    # In bfloat16 no step of 1e-3 would move it from 1 at all.
    chex.assert_trees_all_close(state.z["a"], jnp.full(2, 0.99), rtol=1e-5)
    assert jax.eval_shape(coupled.init, params).z["a"].dtype == jnp.float32
    abstract = coupled.init(jax.eval_shape(lambda: params))
    assert abstract.z["a"].dtype == jnp.float32


def test_without_weight_the_dual_iterate_may_overflow():
    ours = lpoptax.stacey_coupling(optax.sgd(0.1), lpoptax.mirror_descent(1e38), 0.0)
    g = jnp.full(2, 100.0)
    (moved,) = trajectory(ours, jnp.zeros(2), [g])
    chex.assert_trees_all_close(moved, jnp.full(2, -10.0))


def test_half_precision_is_coupled_in_float32():
    # In bfloat16 a tau of 0.3 is 0.30078, and 100 of it 30.125.
    theta, g = jnp.zeros(1, jnp.bfloat16), jnp.full(1, 100, jnp.bfloat16)
    coupled = lpoptax.stacey_coupling(primal=optax.set_to_zero(), dual=optax.identity(), tau=0.3)
    updates, _ = coupled.update(g, coupled.init(theta), theta)
    chex.assert_trees_all_equal(updates, jnp.full(1, 30, jnp.bfloat16))


@pytest.mark.parametrize("schedule", [optax.constant_schedule(0.1)])
def test_a_schedule_of_tau_is_refused(schedule):
    with pytest.raises(ValueError, match="tau must be between 0 and 1, got tau=<function"):
        lpoptax.stacey_coupling(optax.sgd(0.1), optax.sgd(0.1), schedule)
