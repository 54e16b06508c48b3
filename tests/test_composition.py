"""All of ours inside what Optax and JAX put around an optimizer."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lpoptax
from tests import reference
from tests.helpers import random_problem, trajectory

SCHEDULE = lpoptax.cosine_p_schedule(6.0, 20)


def strong_schedule(step):
    """A float32 that would promote half precision, as linear and warm-up schedules return."""
    return jnp.full_like(step, 0.01, dtype=jnp.float32)


OPTIMIZERS = {
    "lpsgd": lambda p: lpoptax.lpsgd(0.01, p),
    "lpsgdm": lambda p: lpoptax.lpsgdm(0.01, p, weight_decay=0.1),
    "stacey p,2": lambda p: lpoptax.stacey(0.01, p, weight_decay=0.1),
    "stacey p,p": lambda p: lpoptax.stacey(0.01, p, mirror_p=p, tau=0.1),
    "stacey 2,p": lambda p: lpoptax.stacey(0.01, 2.0, mirror_p=p, tau=0.1),
    "power": lambda p: optax.chain(lpoptax.scale_by_lp_power(p), optax.scale(-0.01)),
    "steepest": lambda p: optax.chain(lpoptax.scale_by_lp_steepest_descent(p), optax.scale(-0.01)),
    "mirror": lambda p: optax.chain(lpoptax.mirror_descent(0.01, p)),
    "scheduled rates": lambda p: lpoptax.stacey(
        strong_schedule, p, alpha=strong_schedule, tau=0.1, weight_decay=strong_schedule
    ),
    "scheduled decay": lambda p: lpoptax.lpsgdm(strong_schedule, p, weight_decay=strong_schedule),
    "coupled sgd": lambda p: optax.chain(
        lpoptax.stacey_coupling(optax.sgd(0.01), lpoptax.mirror_descent(0.01, p), tau=0.1)
    ),
    "coupled adamw": lambda p: optax.chain(
        lpoptax.stacey_coupling(optax.adamw(0.01), lpoptax.mirror_descent(0.01, p), tau=0.1)
    ),
}
every_optimizer = pytest.mark.parametrize("build", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())


@every_optimizer
def test_many_p_train_in_one_compiled_program(build):
    params, gradients = random_problem(steps=4)
    p = jnp.array([1.5, 2.0, 3.0, 8.0])
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *gradients)

    @jax.jit
    @jax.vmap
    def final_params(p):
        optimizer = build(p)

        def step(carry, g):
            params, state = carry
            updates, state = optimizer.update(g, state, params)
            return (optax.apply_updates(params, updates), state), None

        (final, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), stacked)
        return final

    together = final_params(p)
    for index, one in enumerate(p.tolist()):
        alone = trajectory(build(one), params, gradients)[-1]
        row = jax.tree.map(lambda leaf, index=index: leaf[index], together)
        # A traced p is inverted in float32, a number in float64; m^10 at p = 1.1 shows it.
        chex.assert_trees_all_close(row, alone, rtol=2e-5, atol=1e-6)


@every_optimizer
def test_a_number_and_a_constant_schedule_are_the_same(build):
    params, gradients = random_problem()
    number, schedule = build(3.0), build(lambda step: jnp.full_like(step, 3.0, dtype=jnp.float32))
    chex.assert_trees_all_equal_structs(number.init(params), schedule.init(params))
    chex.assert_trees_all_close(
        trajectory(number, params, gradients), trajectory(schedule, params, gradients), rtol=1e-5, atol=1e-6
    )


@every_optimizer
def test_state_and_updates_keep_structure_shapes_and_dtypes(build):
    for dtype in (jnp.float16, jnp.bfloat16, jnp.float32):
        params, gradients = random_problem(steps=1, dtype=dtype)
        optimizer = build(SCHEDULE)
        state = optimizer.init(params)
        updates, new_state = jax.jit(optimizer.update)(gradients[0], state, params)
        chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
        chex.assert_trees_all_equal_shapes_and_dtypes(state, new_state)


@pytest.mark.parametrize(
    "build",
    # AdamW itself promotes implicitly.
    [build for name, build in OPTIMIZERS.items() if name != "coupled adamw"],
    ids=[name for name in OPTIMIZERS if name != "coupled adamw"],
)
def test_no_implicit_promotion_happens(build):
    with jax.numpy_dtype_promotion("strict"):
        params, gradients = random_problem(steps=2, dtype=jnp.bfloat16)
        trajectory(build(SCHEDULE), params, gradients)
        trajectory(build(3.0), params, gradients)


@every_optimizer
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_it_may_be_skipped_by_a_condition(build, dtype):
    params, gradients = random_problem(steps=1, dtype=dtype)
    optimizer = build(SCHEDULE)

    @jax.jit
    def step(skip, g, state):
        return jax.lax.cond(
            skip, lambda g, state: (g, state), lambda g, state: optimizer.update(g, state, params), g, state
        )

    step(False, gradients[0], optimizer.init(params))


@every_optimizer
def test_numpy_gradients_and_missing_leaves_are_accepted(build):
    optimizer = build(SCHEDULE)
    params = {"a": jnp.ones(2), "b": None, "c": (None, jnp.ones(()))}
    g = {"a": np.ones(2), "b": None, "c": (None, np.float32(1))}
    updates, _ = optimizer.update(g, optimizer.init(params), params)
    chex.assert_trees_all_equal_structs(updates, params)


@every_optimizer
def test_the_second_step_does_not_compile_again(build):
    params, gradients = random_problem(steps=3)
    optimizer = build(SCHEDULE)
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(params, state, g):
        updates, state = optimizer.update(g, state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for g in gradients:
        params, state = step(params, state, g)


@every_optimizer
def test_params_and_state_can_be_donated_together(build):
    params, gradients = random_problem(steps=2)
    optimizer = build(SCHEDULE)
    state = optimizer.init(params)

    def step(params, state, g):
        updates, state = optimizer.update(g, state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step, donate_argnums=(0, 1))
    for g in gradients:
        params, state = step(params, state, g)


@every_optimizer
def test_it_descends(build):
    optimizer = build(SCHEDULE)
    x = jnp.array([0.3, -0.2, 0.1])
    state = optimizer.init(x)

    @jax.jit
    def step(x, state):
        updates, state = optimizer.update(2 * x, state, x)
        return optax.apply_updates(x, updates), state

    for _ in range(500):
        x, state = step(x, state)
    assert jnp.sum(x**2) < 0.005


@pytest.mark.parametrize("factory", [lpoptax.lpsgd, lpoptax.lpsgdm, lpoptax.stacey])
@pytest.mark.parametrize("p", [3.0, SCHEDULE], ids=["number", "schedule"])
def test_injected_hyperparameters_change_nothing_and_can_be_read(factory, p):
    params, gradients = random_problem()
    learning_rate = optax.cosine_decay_schedule(0.1, 25)
    plain = factory(learning_rate, p, weight_decay=0.1)
    injected = optax.inject_hyperparams(factory)(learning_rate, p, weight_decay=0.1)
    chex.assert_trees_all_close(
        trajectory(injected, params, gradients), trajectory(plain, params, gradients), rtol=1e-4, atol=1e-5
    )
    state = injected.init(params)
    _, state = injected.update(gradients[0], state, params)
    assert float(state.hyperparams["p"]) == (6.0 if callable(p) else 3.0)


def test_an_injected_optimizer_takes_a_mask_and_a_precision():
    params, gradients = random_problem(steps=1, dtype=jnp.float16)

    def mask(params):
        return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

    injected = optax.inject_hyperparams(
        lpoptax.stacey, static_args=("weight_decay_mask", "mu_dtype"), hyperparam_dtype=jnp.float32
    )
    settings = {"weight_decay": 0.1, "weight_decay_mask": mask, "mu_dtype": jnp.float32}
    chex.assert_trees_all_close(
        trajectory(injected(0.1, 3.0, **settings), params, gradients),
        trajectory(lpoptax.stacey(0.1, 3.0, **settings), params, gradients),
        rtol=1e-3,  # one unit in the last place of float16
    )


def test_groups_of_parameters_may_have_different_p():
    params, gradients = random_problem()
    groups = optax.partition(
        {"flat": lpoptax.lpsgdm(0.1, 2.0), "steep": lpoptax.lpsgdm(0.1, SCHEDULE)},
        {"w": "steep", "b": "flat"},
    )
    visited = trajectory(groups, params, gradients)
    flat = trajectory(lpoptax.lpsgdm(0.1, 2.0), params, gradients)
    steep = trajectory(lpoptax.lpsgdm(0.1, SCHEDULE), params, gradients)
    chex.assert_trees_all_equal([step["b"] for step in visited], [step["b"] for step in flat])
    chex.assert_trees_all_close([step["w"] for step in visited], [step["w"] for step in steep], rtol=1e-6)


def test_it_chains_with_momentum_decay_and_clipping_of_optax():
    params, gradients = random_problem(steps=3)
    chained = optax.chain(
        optax.clip(1.0),
        optax.trace(0.9),
        lpoptax.scale_by_lp_power(3.0),
        optax.add_decayed_weights(0.1),
        optax.scale_by_learning_rate(0.01),
    )
    m, expected = np.zeros(4), np.asarray(params["b"], np.float64)
    for g, ours in zip(gradients, trajectory(chained, params, gradients), strict=True):
        m = 0.9 * m + np.clip(np.asarray(g["b"], np.float64), -1, 1)
        expected = expected - 0.01 * (reference.power(m, 3.0) + 0.1 * expected)
        np.testing.assert_allclose(ours["b"], expected, rtol=1e-5, atol=1e-7)


def test_the_first_step_uses_the_first_value_of_a_schedule():
    optimizer = lpoptax.lpsgd(1.0, lambda step: jnp.where(step == 0, jnp.inf, 2.0), eps=0.0)
    first, second = trajectory(optimizer, jnp.zeros(1), [jnp.full(1, 0.25)] * 2)
    chex.assert_trees_all_equal((first, second), (jnp.full(1, -1.0), jnp.full(1, -1.25)))
