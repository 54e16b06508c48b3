"""STACEY against its formulas, the authors' trajectories, and its limits."""

import json
from pathlib import Path

import chex
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given

import lpoptax
from tests import reference
from tests.helpers import enable_x64, random_problem, trajectory

GOLDEN = json.loads((Path(__file__).parent / "golden" / "stacey.json").read_text())
DEFAULTS = {
    "mirror_p": 2.0,
    "alpha": 0.1,
    "tau": 0.1,
    "b1": 0.9,
    "b2": 0.99,
    "eps": 1e-8,
    "weight_decay": 0.1,
}


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float64, 1e-10), (jnp.float32, 1e-5)])
@pytest.mark.parametrize(
    "case", GOLDEN, ids=[f"{c['variant']}, p = {c['hyperparameters']['p']}" for c in GOLDEN]
)
def test_it_follows_the_trajectories_of_the_authors_code(case, dtype, tolerance):
    with enable_x64(dtype == jnp.float64):

        def tree(values):
            return {name: jnp.asarray(leaf, dtype) for name, leaf in values.items()}

        hyperparameters = case["hyperparameters"]
        mirror_p = hyperparameters["p"] if case["variant"] == "pp" else 2.0
        optimizer = lpoptax.stacey(**hyperparameters, mirror_p=mirror_p)
        visited = trajectory(optimizer, tree(case["params"]), [tree(g) for g in case["gradients"]])
        for ours, theirs in zip(visited, case["trajectory"], strict=True):
            for name, leaf in theirs.items():
                np.testing.assert_allclose(ours[name], leaf, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("p", "mirror_p"),
    [(3.0, 2.0), (3.0, 3.0), (2.0, 3.0), (1.5, 1.5), (np.inf, 4.0), (6.0, 2.5)],
    ids=["p,2", "p,p", "2,p", "p below 2", "sign", "two norms"],
)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_variant_equals_the_formulas_in_float64(p, mirror_p, seed):
    settings = {**DEFAULTS, "mirror_p": mirror_p}
    with enable_x64(True):
        params, gradients = random_problem(seed, steps=5, dtype=jnp.float64)
        visited = trajectory(lpoptax.stacey(0.01, p, **settings), params, gradients, jit=False)
        for leaf in ("w", "b"):
            expected = reference.stacey(
                np.asarray(params[leaf]),
                [np.asarray(g[leaf]) for g in gradients],
                **{**settings, "learning_rate": 0.01, "p": lambda s: p, "mirror_p": lambda s: mirror_p},
            )
            for ours, theirs in zip(visited, expected, strict=True):
                # Where the mirror step cancels, the rounding errors of the two forms differ.
                np.testing.assert_allclose(ours[leaf], theirs, rtol=1e-8, atol=1e-10)


def test_p_and_mirror_p_may_both_be_scheduled():
    schedule = lpoptax.cosine_p_schedule(6.0, 20)

    def p(step):
        return 4 + 2 * np.cos(np.pi * min(step, 19) / 19)

    with enable_x64(True):
        params, gradients = random_problem(dtype=jnp.float64)
        settings = {**DEFAULTS, "mirror_p": schedule}
        visited = trajectory(lpoptax.stacey(0.01, schedule, **settings), params, gradients)
        expected = reference.stacey(
            np.asarray(params["b"]),
            [np.asarray(g["b"]) for g in gradients],
            **{**settings, "learning_rate": 0.01, "p": p, "mirror_p": p},
        )
        for ours, theirs in zip(visited, expected, strict=True):
            np.testing.assert_allclose(ours["b"], theirs, rtol=1e-8, atol=1e-10)


def test_a_scheduled_learning_rate_scales_the_step_and_the_decay():
    params, gradients = random_problem()
    schedule = optax.piecewise_constant_schedule(0.1, {1: 0.5})
    first, second = trajectory(lpoptax.stacey(schedule, 3.0, **DEFAULTS), params, gradients)[:2]
    constant, _ = trajectory(lpoptax.stacey(0.1, 3.0, **DEFAULTS), params, gradients)[:2]
    chex.assert_trees_all_close(first, constant, rtol=1e-6)
    decay_only = lpoptax.stacey(schedule, 3.0, **{**DEFAULTS, "alpha": 0.0, "tau": 0.0})
    zeros = jax.tree.map(jnp.zeros_like, gradients[:2])
    _, second = trajectory(decay_only, params, zeros)
    chex.assert_trees_all_close(second, jax.tree.map(lambda x: x * 0.99 * 0.995, params), rtol=1e-6)


@given(seed=st.integers(0, 2**32 - 1), weight_decay=st.sampled_from([0.0, 0.1]))
def test_without_coupling_at_p_infinity_it_is_lion(seed, weight_decay):
    params, gradients = random_problem(seed, steps=3)
    ours = lpoptax.stacey(0.1, jnp.inf, tau=0.0, eps=0.0, weight_decay=weight_decay)
    lion = optax.lion(0.1, weight_decay=weight_decay)
    visited = (trajectory(one, params, gradients, jit=False) for one in (ours, lion))
    if weight_decay:
        # Lion adds the decay before it multiplies with the learning rate: another rounding.
        chex.assert_trees_all_close(*visited, rtol=3e-6, atol=1e-7)
    else:
        chex.assert_trees_all_equal(*visited)


def test_without_coupling_at_p_infinity_it_is_lion_under_jit_with_schedules():
    params, gradients = random_problem()
    schedule = optax.cosine_decay_schedule(0.1, 25)
    ours = lpoptax.stacey(schedule, jnp.inf, tau=0.0, eps=0.0, weight_decay=0.1)
    lion = optax.lion(schedule, weight_decay=0.1)
    chex.assert_trees_all_close(
        trajectory(ours, params, gradients), trajectory(lion, params, gradients), rtol=3e-6, atol=1e-7
    )


@given(seed=st.integers(0, 2**32 - 1))
def test_at_p_2_the_variants_agree(seed):
    params, gradients = random_problem(seed, steps=3)
    p2 = lpoptax.stacey(0.1, 2.0, **DEFAULTS)
    # A schedule of mirror_p takes the general map, which the number 2 bypasses.
    pp = lpoptax.stacey(0.1, 2.0, **{**DEFAULTS, "mirror_p": lambda step: 2.0 + 0.0 * step})
    visited = (trajectory(one, params, gradients, jit=False) for one in (pp, p2))
    chex.assert_trees_all_close(*visited, rtol=1e-5, atol=1e-6)


def test_momentum_and_dual_iterate_have_the_dtypes_asked_for():
    params = jnp.ones(2, jnp.bfloat16)
    optimizer = lpoptax.stacey(0.1, 3.0, mu_dtype=jnp.float32, z_dtype=jnp.float32)
    updates, state = optimizer.update(params, optimizer.init(params), params)
    assert updates.dtype == jnp.bfloat16
    assert optax.tree.get(state, "mu").dtype == jnp.float32
    assert optax.tree.get(state, "z").dtype == jnp.float32


@given(
    g=st.lists(st.floats(-10, 10), min_size=3, max_size=3).map(np.array),
    p=st.floats(1.2, 16.0),
    tau=st.floats(0, 1),
)
def test_the_first_step_from_zero_has_its_closed_form(g, p, tau):
    with enable_x64(True):
        optimizer = lpoptax.stacey(0.01, p, tau=tau, alpha=0.1, weight_decay=0.1)
        (first,) = trajectory(optimizer, jnp.zeros(3), [jnp.asarray(g)], jit=False)
    c = (1 - 0.9) * g
    expected = -(1 - tau) * 0.01 * reference.power(c, p) - tau * 0.1 * c
    np.testing.assert_allclose(first, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p": 1.0}, "p must be greater than 1 .*, got p=1.0"),
        ({"mirror_p": 1.0}, "mirror_p must be greater than 1 and finite, got mirror_p=1.0"),
        ({"mirror_p": np.inf}, "mirror_p must be greater than 1 and finite, got mirror_p=inf"),
        ({"alpha": -1.0}, "alpha must be non-negative and finite, got alpha=-1.0"),
        ({"tau": 1.1}, "tau must be between 0 and 1, got tau=1.1"),
        ({"tau": -0.1}, "tau must be between 0 and 1, got tau=-0.1"),
        ({"b1": 1.0}, "b1 must be at least 0 and below 1, got b1=1.0"),
        ({"b2": -1.0}, "b2 must be at least 0 and below 1, got b2=-1.0"),
        ({"eps": -1.0}, "eps must be non-negative and finite, got eps=-1.0"),
        ({"weight_decay": -1.0}, "weight_decay must be non-negative and finite, got weight_decay=-1.0"),
    ],
)
def test_numbers_outside_their_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        lpoptax.stacey(0.1, **{"p": 3.0, **arguments})


def test_an_update_without_params_is_refused():
    optimizer = lpoptax.stacey(0.1, 3.0)
    with pytest.raises(ValueError, match="params must be passed to update, got params=None"):
        optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)))
