"""The steepest-descent step: it is the minimiser it claims to be."""

import chex
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

import lpoptax
from tests.helpers import enable_x64

P = st.one_of(st.floats(1.05, 64.0), st.just(np.inf))
SEED = st.integers(0, 2**32 - 1)


def steepest(g, p):
    """Returns the step in float64, without eps."""
    with enable_x64(True):
        transformation = lpoptax.scale_by_lp_steepest_descent(p, eps=0.0)
        updates, _ = transformation.update(jax.tree.map(jnp.asarray, g), transformation.init(g))
        return jax.tree.map(np.asarray, updates)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def norm(x, p):
    """The p-norm, relative to the largest coordinate, since x**p leaves the range of floats."""
    largest = np.max(np.abs(x))
    return largest if np.isinf(p) or largest == 0 else largest * np.sum(np.abs(x / largest) ** p) ** (1 / p)


def dual(p):
    return 1.0 if np.isinf(p) else p / (p - 1)


def random_gradient(seed):
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.uniform(-8, 3)
    return {"w": scale * rng.standard_normal((3, 2)), "b": scale * rng.standard_normal(4)}


@given(seed=SEED, p=P)
def test_the_step_attains_the_dual_norm(seed, p):
    g = random_gradient(seed)
    u = flat(steepest(g, p))
    g = flat(g)
    assert norm(u, p) == pytest.approx(norm(g, dual(p)), rel=1e-9)
    assert np.dot(g, u) == pytest.approx(norm(g, dual(p)) ** 2, rel=1e-9)


@given(seed=SEED, p=P)
def test_the_step_beats_every_random_competitor(seed, p):
    g = random_gradient(seed)
    u = flat(steepest(g, p))
    g = flat(g)

    def objective(change):
        return np.dot(g, change) + norm(change, p) ** 2 / 2

    rng = np.random.default_rng(seed + 1)
    best = objective(-u)
    for spread in (1e-3, 1e-1, 1.0):
        competitor = -u + spread * np.max(np.abs(u)) * rng.standard_normal(u.shape)
        assert best <= objective(competitor) + 1e-12 * abs(best)


@given(seed=SEED, p=P, scale=st.floats(1e-3, 1e3))
def test_the_step_is_linear_in_the_scale_of_the_gradient(seed, p, scale):
    g = random_gradient(seed)
    scaled = jax.tree.map(lambda leaf: scale * leaf, g)
    np.testing.assert_allclose(flat(steepest(scaled, p)), scale * flat(steepest(g, p)), rtol=1e-9)


def test_p_2_is_the_gradient_and_p_infinity_the_sign_times_the_1_norm():
    g = random_gradient(0)
    np.testing.assert_allclose(flat(steepest(g, 2.0)), flat(g), rtol=1e-12)
    np.testing.assert_allclose(
        flat(steepest(g, np.inf)), np.sum(np.abs(flat(g))) * np.sign(flat(g)), rtol=1e-12
    )


EVERY_SCALE = [2e-38, 1e-30, 1e-10, 1e10, 1e30, 1e37]
SCALES = [1e-18, 1e-10, 1e10, 1e18]


@pytest.mark.parametrize("how", ["number", "jit", "traced p"])
@pytest.mark.parametrize(
    ("p", "scale"),
    [(p, scale) for p in (1.01, 1.1, 1.9) for scale in EVERY_SCALE]
    + [(p, scale) for p in (2.0, 2.001, 3.0, np.inf) for scale in SCALES],
)
def test_no_scale_of_the_gradient_leaves_the_range_of_float32(p, scale, how):
    def update(g, p):
        transformation = lpoptax.scale_by_lp_steepest_descent(p, eps=0.0)
        return transformation.update(g, transformation.init(g))[0]

    update = {"number": update, "jit": jax.jit(update, static_argnums=1), "traced p": jax.jit(update)}[how]
    g = scale * np.array([1.0, -0.8, 0.9, 0.0])
    u = update(jnp.asarray(g, jnp.float32), p)
    # A traced p - 1 has the rounding of float32, which 1 / (p - 1) enlarges near p = 1. XLA
    # flushes subnormal results to zero.
    rtol = 1e-4 if how == "traced p" and p < 1.1 else 2e-5
    np.testing.assert_allclose(u, steepest(g, p), rtol=rtol, atol=1.2e-38)


@pytest.mark.parametrize("p", [2.0, 2.001, 3.0, np.inf])
@pytest.mark.parametrize("scale", [1e-37, 1e37])
def test_a_sum_that_leaves_the_range_of_float32_leaves_the_step_finite(p, scale):
    transformation = lpoptax.scale_by_lp_steepest_descent(p, eps=0.0)
    g = jnp.array([scale, 0.0], jnp.float32)
    u, _ = transformation.update(g, transformation.init(g))
    chex.assert_tree_all_finite(u)
    assert u[1] == 0


@pytest.mark.parametrize("jit", [True, False])
def test_subnormal_coordinates_are_no_trouble(jit):
    transformation = lpoptax.scale_by_lp_steepest_descent(3.0, eps=0.0)
    update = jax.jit(transformation.update) if jit else transformation.update
    for g in ([1.0, 1e-40], [1e-3, 1e-40], [3e-38, 1e-39]):
        u, _ = update(jnp.asarray(g, jnp.float32), transformation.init(g))
        chex.assert_tree_all_finite(u)


def test_eps_is_in_the_units_of_the_gradient():
    transformation = lpoptax.scale_by_lp_steepest_descent(3.0, eps=0.01)
    g = jnp.array([0.04, -0.03])
    u, _ = transformation.update(g, transformation.init(g))
    factor = norm(np.asarray(g), 1.5) ** 0.5
    chex.assert_trees_all_close(u, factor * g / (jnp.abs(g) + 0.01) ** 0.5, rtol=1e-5)


@pytest.mark.parametrize(
    "tree", [{}, {"a": None}, {"a": jnp.zeros(3)}, {"a": jnp.zeros((0, 2))}, jnp.zeros(())]
)
@pytest.mark.parametrize("p", [1.5, 2.0, np.inf])
def test_nothing_gives_nothing(tree, p):
    transformation = lpoptax.scale_by_lp_steepest_descent(p)
    u, _ = transformation.update(tree, transformation.init(tree))
    chex.assert_trees_all_equal(u, tree)


def test_leaves_of_several_dtypes_keep_them():
    g = {"h": jnp.ones(2, jnp.bfloat16), "s": jnp.ones(2), "c": jnp.array([1 + 1j], jnp.complex64)}
    transformation = lpoptax.scale_by_lp_steepest_descent(3.0)
    u, _ = transformation.update(g, transformation.init(g))
    chex.assert_trees_all_equal_shapes_and_dtypes(u, g)


@pytest.mark.parametrize("p", [1.5, 3.0])
def test_leaves_of_several_precisions_share_one_scale(p):
    with enable_x64(True):
        transformation = lpoptax.scale_by_lp_steepest_descent(p, eps=0.0)
        for single, double in ((0.0, 0.0), (1.0, 1e45), (1e-50, 1e-30)):
            g = {"f": jnp.full(2, single, jnp.float32), "d": jnp.full(2, double, jnp.float64)}
            u, _ = transformation.update(g, transformation.init(g))
            chex.assert_trees_all_equal_shapes_and_dtypes(u, g)
            expected = steepest({"f": np.full(2, single), "d": np.full(2, double)}, p)
            # What the smaller precision cannot hold is zero there.
            chex.assert_trees_all_close(jax.tree.map(np.float64, u), expected, rtol=1e-6, atol=1.2e-38)


def test_p_follows_its_schedule_from_step_0():
    g = random_gradient(0)
    p = lpoptax.gradual_p_schedule(3)
    with enable_x64(True):
        transformation = lpoptax.scale_by_lp_steepest_descent(p, eps=0.0)
        state = transformation.init(g)
        for expected in (np.inf, 4.0, 2.5, 2.0, 2.0):
            u, state = transformation.update(jax.tree.map(jnp.asarray, g), state)
            np.testing.assert_allclose(flat(u), flat(steepest(g, expected)), rtol=1e-12)
