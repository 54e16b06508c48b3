"""What Optax's own optimizers are held to, and what its wrappers and JAX do with them.

Every test runs over the table in `tests/optimizers.py`.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lpoptax
from tests import reference
from tests.helpers import enable_x64, random_problem, trajectory
from tests.optimizers import COSINE, KINDS, ROWS, matrices, strong_schedule

WITHOUT_P = ("momentum", "coupled adamw decay")  # or with what promotes dtypes itself
every_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
# For what depends on the kind of an optimizer, and not on its settings: a row takes a second to compile.
every_kind = pytest.mark.parametrize(
    "row", [ROWS[name] for name in (*KINDS, *WITHOUT_P)], ids=(*KINDS, *WITHOUT_P)
)
every_kind_with_p = pytest.mark.parametrize("row", [ROWS[name] for name in KINDS], ids=KINDS)


def step_function(optimizer, objective):
    def step(params, state):
        updates, state = optimizer.update(jax.grad(objective)(params), state, params)
        return optax.apply_updates(params, updates), state

    return step


def squares(params):
    return sum(jnp.sum(jnp.abs(leaf) ** 2) for leaf in jax.tree.leaves(params))


# Convergence


def distance(params, target):
    return max(jnp.max(jnp.abs(x - y)) for x, y in zip(*map(jax.tree.leaves, (params, target)), strict=True))


def squared_distance(params, target):
    return squares(jax.tree.map(jnp.subtract, params, target))


def rosenbrock(params, target):
    del target
    return (1 - params[0]) ** 2 + 100 * (params[1] - params[0] ** 2) ** 2


PROBLEMS = {
    "parabola": (jnp.array([-1.0, 10.0, 1.0]), jnp.array([1.0, -1.0, 1.0]), squared_distance),
    "rosenbrock": (jnp.zeros(2), jnp.ones(2), rosenbrock),
    "matrix": (jnp.zeros((2, 2)), jnp.array([[3.0, -2.0], [1.0, 4.0]]), squared_distance),
    "mixed shapes": (
        (jnp.zeros(3), jnp.zeros((2, 2)), jnp.zeros(())),
        (jnp.array([1.0, -1.0, 2.0]), jnp.array([[1.0, 0.0], [-1.0, 1.0]]), jnp.array(0.5)),
        squared_distance,
    ),
}


@every_kind
@pytest.mark.parametrize("problem", PROBLEMS)
def test_it_converges(row, problem):
    params, target, objective = PROBLEMS[problem]
    optimizer = row.build()
    step = step_function(optimizer, lambda params: objective(params, target))
    start = (params, optimizer.init(params))
    (params, _), _ = jax.jit(lambda carry: jax.lax.scan(lambda c, _: (step(*c), None), carry, length=30_000))(
        start
    )
    # The tolerance of Optax's own contract test.
    assert distance(params, target) < 3e-2


# Calls


@every_row
def test_unknown_extra_arguments_are_accepted(row):
    optimizer = row.build()
    assert isinstance(optimizer, optax.GradientTransformationExtraArgs)
    params, (g,) = random_problem(steps=1)
    optimizer.update(g, optimizer.init(params), params, something_nobody_expects=1)


@every_kind
def test_the_second_step_does_not_compile_again(row):
    params, gradients = random_problem(steps=3)
    optimizer = row.build()
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(params, state, g):
        updates, state = optimizer.update(g, state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for g in gradients:
        params, state = step(params, state, g)


@every_kind
def test_params_and_state_can_be_donated_together(row):
    params, gradients = random_problem(steps=2)
    optimizer = row.build()
    state = optimizer.init(params)

    def step(params, state, g):
        updates, state = optimizer.update(g, state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step, donate_argnums=(0, 1))
    for g in gradients:
        params, state = step(params, state, g)


@every_row
def test_numpy_gradients_and_missing_leaves_are_accepted(row):
    optimizer = row.build()
    params = {"a": jnp.ones(2), "b": None, "c": (None, jnp.ones(()))}
    g = {"a": np.ones(2), "b": None, "c": (None, np.float32(1))}
    updates, _ = optimizer.update(g, optimizer.init(params), params)
    chex.assert_trees_all_equal_structs(updates, params)


@every_kind
@pytest.mark.parametrize(
    "params",
    [{}, (), jnp.ones(()), {"a": jnp.ones((0, 3)), "b": jnp.ones(2)}, [jnp.ones((2, 3)), [jnp.ones(1)]]],
    ids=["empty dict", "empty tuple", "scalar", "zero-size leaf", "nested lists"],
)
def test_trees_of_every_shape_are_accepted(row, params):
    optimizer = row.build()
    state = optimizer.init(params)
    for _ in range(2):
        updates, state = jax.jit(optimizer.update)(params, state, params)
        chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
        chex.assert_tree_all_finite(updates)


@every_kind
def test_complex_parameters_turn_with_their_gradients(row):
    turn = jnp.exp(0.7j).astype(jnp.complex64)
    params, gradients = random_problem(steps=4)

    def turned(tree):
        return jax.tree.map(lambda leaf: turn * leaf, tree)

    real = trajectory(row.build(), params, gradients)
    complex_ = trajectory(row.build(), turned(params), [turned(g) for g in gradients])
    chex.assert_trees_all_close(complex_, [turned(params) for params in real], rtol=1e-4, atol=1e-5)


# Dtypes


@pytest.mark.parametrize(
    ("row", "dtype"),
    [(row, jnp.bfloat16) for row in ROWS.values()]
    + [(ROWS[name], dtype) for name in KINDS for dtype in (jnp.float16, jnp.float32, jnp.float64)],
    ids=[
        *(f"{name}-bfloat16" for name in ROWS),
        *(f"{name}-{bits}" for name in KINDS for bits in (16, 32, 64)),
    ],
)
def test_updates_and_state_keep_their_dtypes_and_shapes(row, dtype):
    with enable_x64(dtype == jnp.float64):
        params, gradients = random_problem(steps=1, dtype=dtype)
        optimizer = row.build()
        state = optimizer.init(params)
        updates, new_state = jax.jit(optimizer.update)(gradients[0], state, params)
        chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
        chex.assert_trees_all_equal_shapes_and_dtypes(state, new_state)
        # A drift of the state's dtypes would be an error in both of these.
        jax.lax.cond(True, lambda s: optimizer.update(gradients[0], s, params)[1], lambda s: s, state)
        jax.lax.scan(lambda s, g: (optimizer.update(g, s, params)[1], None), state, stacked(gradients))
        skipped = jax.jit(jax.lax.cond, static_argnums=(1, 2))(
            False, lambda g, s: optimizer.update(g, s, params), lambda g, s: (g, s), gradients[0], state
        )
        chex.assert_trees_all_equal(skipped, (gradients[0], state))


def stacked(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@pytest.mark.parametrize(
    "row",
    # AdamW promotes implicitly itself.
    [row for name, row in ROWS.items() if "adamw" not in name],
    ids=[name for name in ROWS if "adamw" not in name],
)
def test_no_implicit_promotion_happens(row):
    with jax.numpy_dtype_promotion("strict"):
        params, gradients = random_problem(steps=2, dtype=jnp.bfloat16)
        trajectory(row.build(), params, gradients)


# Norms and schedules


@every_kind_with_p
def test_many_p_train_in_one_compiled_program(row):
    params, gradients = random_problem(steps=4)
    p = jnp.array([row.lowest_p, 2.0, 3.0, 8.0])

    @jax.jit
    @jax.vmap
    def final_params(p):
        optimizer = row.with_p(p)

        def step(carry, g):
            params, state = carry
            updates, state = optimizer.update(g, state, params)
            return (optax.apply_updates(params, updates), state), None

        (final, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), stacked(gradients))
        return final

    together = final_params(p)
    for index, one in enumerate(p.tolist()):
        alone = trajectory(row.with_p(one), params, gradients)[-1]
        # A traced p - 1 is taken in float32, a number's in float64.
        chex.assert_trees_all_close(
            jax.tree.map(lambda leaf, index=index: leaf[index], together), alone, rtol=2e-5, atol=1e-6
        )


@every_kind_with_p
def test_a_number_and_a_constant_schedule_are_the_same_also_in_state(row):
    params, gradients = random_problem()
    number = row.with_p(3.0)
    schedule = row.with_p(lambda step: jnp.full_like(step, 3.0, dtype=jnp.float32))
    chex.assert_trees_all_equal_structs(number.init(params), schedule.init(params))
    chex.assert_trees_all_close(
        trajectory(number, params, gradients), trajectory(schedule, params, gradients), rtol=1e-5, atol=1e-6
    )


@every_kind_with_p
def test_the_first_step_uses_the_first_value_of_a_schedule(row):
    params, gradients = random_problem(steps=2)
    first, second = trajectory(
        row.with_p(lambda step: jnp.where(step == 0, 4.0, jnp.where(step == 1, 3.0, jnp.nan))),
        params,
        gradients,
    )
    (alone,) = trajectory(row.with_p(4.0), params, gradients[:1])
    chex.assert_trees_all_close(first, alone, rtol=1e-5, atol=1e-6)
    chex.assert_tree_all_finite(second)


# inject_hyperparams


@every_kind
def test_injected_hyperparameters_change_nothing(row):
    params, gradients = random_problem()
    settings = {"learning_rate": row.learning_rate, **row.settings}
    injected = optax.inject_hyperparams(row.factory, static_args=row.static_args)(**settings)
    chex.assert_trees_all_close(
        trajectory(injected, params, gradients),
        trajectory(row.build(), params, gradients),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("factory", [lpoptax.lpsgd, lpoptax.lpsgdm, lpoptax.stacey])
def test_injected_p_can_be_read(factory):
    params, gradients = random_problem(steps=1)
    injected = optax.inject_hyperparams(factory)(0.1, COSINE)
    _, state = injected.update(gradients[0], injected.init(params), params)
    assert float(state.hyperparams["p"]) == 6.0


def test_an_injected_optimizer_takes_a_mask_and_a_precision():
    params, gradients = random_problem(steps=1, dtype=jnp.float16)
    injected = optax.inject_hyperparams(
        lpoptax.stacey, static_args=("weight_decay_mask", "mu_dtype"), hyperparam_dtype=jnp.float32
    )
    settings = {"weight_decay": 0.1, "weight_decay_mask": matrices, "mu_dtype": jnp.float32}
    chex.assert_trees_all_close(
        trajectory(injected(0.1, 3.0, **settings), params, gradients),
        trajectory(lpoptax.stacey(0.1, 3.0, **settings), params, gradients),
        rtol=1e-3,  # one unit in the last place of float16
    )


def test_an_injected_mask_that_is_not_static_is_refused():
    injected = optax.inject_hyperparams(lpoptax.lpsgdm)(
        0.1, 3.0, weight_decay=0.1, weight_decay_mask=matrices
    )
    with pytest.raises(ValueError, match="weight_decay_mask must be .* name it in static_args"):
        injected.init(jnp.ones(2))


# What is no hyperparameter


@pytest.mark.parametrize("bad", [None, "3", [3.0], 2 + 1j, jnp.array([2.0, 3.0]), np.array([3.0])])
@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("p", lambda p: lpoptax.scale_by_lp_power(p)),
        ("p", lambda p: lpoptax.scale_by_lp_steepest_descent(p)),
        ("p", lambda p: lpoptax.scale_by_schatten_power(p)),
        ("vector_p", lambda vector_p: lpoptax.schatten_sgdm(0.1, 3.0, vector_p=vector_p)),
        ("eps", lambda eps: lpoptax.scale_by_lp_power(3.0, eps)),
        ("eps", lambda eps: lpoptax.scale_by_schatten_power(3.0, eps)),
        ("p", lambda p: lpoptax.lpsgd(0.1, p)),
        ("learning_rate", lambda learning_rate: lpoptax.lpsgd(learning_rate, 3.0)),
        ("learning_rate", lambda learning_rate: lpoptax.lpsgdm(learning_rate, 3.0)),
        ("learning_rate", lambda learning_rate: lpoptax.stacey(learning_rate, 3.0)),
        ("learning_rate", lambda learning_rate: lpoptax.schatten_sgdm(learning_rate, 3.0)),
        ("momentum", lambda momentum: lpoptax.lpsgdm(0.1, 3.0, momentum)),
        ("mirror_p", lambda mirror_p: lpoptax.stacey(0.1, 3.0, mirror_p)),
        ("alpha", lambda alpha: lpoptax.mirror_descent(alpha)),
        ("tau", lambda tau: lpoptax.stacey(0.1, 3.0, tau=tau)),
        ("b1", lambda b1: lpoptax.scale_by_interpolated_momentum(b1)),
        ("total_steps", lambda total_steps: lpoptax.gradual_p_schedule(total_steps)),
        ("p_max", lambda p_max: lpoptax.cosine_p_schedule(p_max, 10)),
    ],
)
def test_what_is_no_number_is_refused_by_name(name, build, bad):
    with pytest.raises(ValueError, match=f"{name} must be .*, got {name}="):
        build(bad)


@pytest.mark.parametrize("name", ["eps", "momentum"])
def test_a_schedule_is_refused_where_a_number_is_needed(name):
    with pytest.raises(ValueError, match=f"{name} must be .*, got {name}=<function"):
        lpoptax.lpsgdm(0.1, 3.0, **{name: strong_schedule})


# State


@every_row
def test_map_params_finds_all_that_is_shaped_like_the_params(row):
    params, _ = random_problem(steps=1)
    optimizer = row.build()
    state = optimizer.init(params)
    chex.assert_trees_all_equal(optax.tree.map_params(optimizer, lambda leaf: leaf, state), state)
    specs = jax.tree.map(lambda leaf: f"spec of {leaf.shape}", params)
    mapped = optax.tree.map_params(
        optimizer, lambda _, spec: spec, state, specs, transform_non_params=lambda _: "replicated"
    )
    for leaf, spec in zip(jax.tree.leaves(state), jax.tree.leaves(mapped), strict=True):
        assert spec == (f"spec of {leaf.shape}" if leaf.shape else "replicated")


@every_row
def test_a_state_can_be_made_from_abstract_params(row):
    params, _ = random_problem(steps=1)
    optimizer = row.build()
    concrete = jax.eval_shape(lambda: optimizer.init(params))
    abstract_params = jax.eval_shape(lambda: params)
    for state in (jax.eval_shape(optimizer.init, abstract_params), optimizer.init(abstract_params)):
        chex.assert_trees_all_equal_structs(state, concrete)
        for leaf, expected in zip(jax.tree.leaves(state), jax.tree.leaves(concrete), strict=True):
            assert (leaf.shape, leaf.dtype) == (expected.shape, expected.dtype)


# Wrappers of Optax


@every_kind
def test_multi_steps_averages_gradients(row):
    params, gradients = random_problem(steps=4)
    by_two = trajectory(optax.MultiSteps(row.build(), 2), params, gradients)
    averages = [
        jax.tree.map(lambda a, b: (a + b) / 2, *pair)
        for pair in zip(gradients[::2], gradients[1::2], strict=True)
    ]
    plain = trajectory(row.build(), params, averages)
    chex.assert_trees_all_close(by_two[1::2], plain, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal(by_two[0], params)


@every_kind
def test_masked_leaves_the_rest_alone(row):
    params, gradients = random_problem(steps=3)
    masked = trajectory(optax.masked(row.build(), {"w": True, "b": False}), params, gradients)
    alone = trajectory(row.build(), {"w": params["w"]}, [{"w": g["w"]} for g in gradients])
    chex.assert_trees_all_close([p["w"] for p in masked], [p["w"] for p in alone], rtol=1e-6, atol=1e-7)


@every_kind_with_p
def test_partition_gives_each_group_its_p(row):
    params, gradients = random_problem(steps=3)
    groups = optax.partition({"flat": row.with_p(2.0), "steep": row.with_p(6.0)}, {"w": "steep", "b": "flat"})
    together = trajectory(groups, params, gradients)
    for leaf, p in (("w", 6.0), ("b", 2.0)):
        alone = trajectory(row.with_p(p), {leaf: params[leaf]}, [{leaf: g[leaf]} for g in gradients])
        chex.assert_trees_all_close(
            [q[leaf] for q in together], [q[leaf] for q in alone], rtol=1e-6, atol=1e-7
        )


@every_kind
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_gradient_propagates_and_apply_if_finite_recovers(row, bad):
    params, gradients = random_problem(steps=3)
    poisoned = jax.tree.map(lambda leaf: leaf.at[0].set(bad), gradients[1])
    # As with Optax's own optimizers.
    for after in trajectory(row.build(), params, [gradients[0], poisoned, gradients[2]])[1:]:
        assert not any(jnp.isfinite(leaf[0]).any() for leaf in after.values())
    recovered = trajectory(
        optax.apply_if_finite(row.build(), 3), params, [gradients[0], poisoned, gradients[2]]
    )
    chex.assert_trees_all_equal(recovered[1], recovered[0])
    chex.assert_tree_all_finite(recovered[2])


# A flat tree has no matrices.
@pytest.mark.parametrize("name", [name for name in KINDS if not name.startswith("schatten")])
def test_flatten_changes_nothing(name):
    row = ROWS[name]
    if row.static_args:
        row = row._replace(settings={**row.settings, "weight_decay_mask": None})  # there is one leaf left
    params, gradients = random_problem(steps=3)
    chex.assert_trees_all_close(
        trajectory(optax.flatten(row.build()), params, gradients),
        trajectory(row.build(), params, gradients),
        rtol=1e-5,
        atol=1e-6,
    )


@every_kind
@pytest.mark.parametrize(
    "wrap",
    [
        lambda optimizer: optax.contrib.schedule_free(optimizer, 1e-3),
        lambda optimizer: optax.contrib.sam(optimizer, optax.sgd(1e-2), opaque_mode=False),
    ],
    ids=["schedule_free", "sam"],
)
def test_it_descends_inside_other_optimizers(row, wrap):
    optimizer = wrap(row.build())
    params = {"a": jnp.array([0.3, -0.2]), "b": jnp.array([[0.1]])}
    step = step_function(optimizer, squares)
    final, _ = jax.jit(lambda carry: jax.lax.fori_loop(0, 100, lambda _, carry: step(*carry), carry))(
        (params, optimizer.init(params))
    )
    assert squares(final) < 0.95 * squares(params)


@every_kind
def test_it_descends_under_lookahead(row):
    optimizer = optax.lookahead(row.build(), sync_period=5, slow_step_size=0.5)
    params = optax.LookaheadParams.init_synced({"a": jnp.array([0.3, -0.2])})

    def step(_, carry):
        params, state = carry
        updates, state = optimizer.update(jax.grad(squares)(params.fast), state, params)
        return optax.apply_updates(params, updates), state

    final, _ = jax.jit(lambda carry: jax.lax.fori_loop(0, 500, step, carry))((params, optimizer.init(params)))
    assert squares(final.slow) < 0.8 * squares(params.slow)


# Chains


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


def test_links_after_the_coupling_see_an_update_of_the_params():
    params, gradients = random_problem(steps=3)
    coupled = lpoptax.stacey(0.1, 3.0, tau=0.5, alpha=0.1)
    halved = trajectory(optax.chain(coupled, optax.scale(0.5)), params, gradients)[0]
    plain = trajectory(coupled, params, gradients)[0]
    expected = jax.tree.map(lambda start, end: (start + end) / 2, params, plain)
    chex.assert_trees_all_close(halved, expected, rtol=1e-5, atol=1e-6)
