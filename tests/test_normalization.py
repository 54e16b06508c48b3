"""Normalized steps: their length, at every scale and precision, and what is left alone."""

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

every_normalization = pytest.mark.parametrize("normalization", ["rms", "dual_norm"])
whole_or_per_leaf = pytest.mark.parametrize("per_leaf", [False, True])
P = jnp.array([1.5, 2.0, 3.0, 6.0, jnp.inf])


def unit(updates, **options):
    transformation = lpoptax.normalize_by_update_rms(**options)
    return transformation.update(updates, transformation.init(updates))[0]


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def rms(tree):
    return np.sqrt(np.mean(np.abs(flat(tree).astype(np.complex128)) ** 2))


def spaces(per_leaf, *trees):
    """Returns the vectors that are normalized by themselves: of each those in the trees."""
    if per_leaf:
        return zip(*([np.ravel(leaf) for leaf in jax.tree.leaves(tree)] for tree in trees), strict=True)
    return [tuple(map(flat, trees))]


@every_normalization
@whole_or_per_leaf
def test_lpsgdm_equals_the_formulas_in_float64(normalization, per_leaf):
    settings = {
        "p": lambda step: 4.0 - 1.25 * step,  # at last below 2, without eps
        "momentum": 0.9,
        "eps": 1e-3,
        "weight_decay": 0.1,
        "normalization": normalization,
    }
    with enable_x64(True):
        params, gradients = random_problem(steps=3, dtype=jnp.float64)
        visited = trajectory(lpoptax.lpsgdm(0.01, **settings, per_leaf=per_leaf), params, gradients)
    for start, *rest in spaces(per_leaf, params, *gradients, *visited):
        expected = reference.lpsgdm(start, rest[:3], 0.01, **settings)
        np.testing.assert_allclose(rest[3:], list(expected), rtol=1e-9, atol=1e-12)


def test_the_learning_rate_is_the_root_mean_square_of_a_step_whatever_p():
    params, (g,) = random_problem(steps=1)

    @jax.vmap
    def update(p):
        optimizer = lpoptax.lpsgd(0.01, p, normalization="rms")
        return optimizer.update(g, optimizer.init(params))[0]

    for step in np.concatenate([leaf.reshape(len(P), -1) for leaf in jax.tree.leaves(update(P))], axis=1):
        assert rms(step) == pytest.approx(0.01, rel=1e-5)


@pytest.mark.parametrize(
    ("p", "scale", "dtype"),
    [(1.1, 1e-5, jnp.float32), (1.1, 1e5, jnp.float32), (1.5, 1e-4, jnp.float16), (1.5, 300.0, jnp.float16)],
)
@whole_or_per_leaf
def test_below_p_2_steps_have_unit_rms_at_every_scale(p, scale, dtype, per_leaf):
    g = jnp.asarray([scale, -2 * scale], dtype)
    optimizer = lpoptax.lpsgd(1.0, p, normalization="rms", per_leaf=per_leaf)
    step = np.asarray(optimizer.update(g, optimizer.init(g))[0], np.float64)
    power = np.array([-1.0, 2 ** (1 / (p - 1))])
    np.testing.assert_allclose(step, power / rms(power), rtol=2e-3 if dtype == jnp.float16 else 1e-5)


@pytest.mark.parametrize("p", [2.0, 3.0, np.inf])
@pytest.mark.parametrize("scale", [1e-36, 1e-30, 1e-15, 1e15, 1e37])
def test_above_p_2_steps_have_unit_rms_at_every_scale(p, scale):
    g = scale * jnp.array([1.0, -2.0, 0.5])
    optimizer = lpoptax.lpsgd(1.0, p, normalization="rms")
    step = np.asarray(optimizer.update(g, optimizer.init(g))[0], np.float64)
    power = reference.power(np.asarray(g, np.float64), p, 1e-8)
    np.testing.assert_allclose(step, -power / rms(power), rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_in_half_precision_only_the_step_is_rounded(dtype):
    g = jnp.asarray(np.geomspace(1e-4, 1.0, 64), dtype)
    optimizer = lpoptax.lpsgd(1.0, 6.0, normalization="rms")
    wide, half = (optimizer.update(x, optimizer.init(x))[0] for x in (g.astype(jnp.float32), g))
    chex.assert_trees_all_equal(half, wide.astype(dtype))


def test_at_p_2_the_dual_norm_changes_nothing():
    params, gradients = random_problem()
    for per_leaf in (False, True):
        normalized = lpoptax.lpsgdm(0.1, 2.0, normalization="dual_norm", per_leaf=per_leaf)
        chex.assert_trees_all_equal(
            trajectory(normalized, params, gradients), trajectory(lpoptax.lpsgdm(0.1, 2.0), params, gradients)
        )


def test_for_a_leaf_it_is_the_normalization_of_optax_times_the_root_of_the_size():
    g = jnp.array([0.3, -4.0, 0.0, 2.0])
    optax_norm = optax.normalize_by_update_norm(scale_factor=2.0, eps=0.0)
    chex.assert_trees_all_close(unit(g), optax_norm.update(g, optax_norm.init(g))[0], rtol=1e-6)


@given(
    seed=st.integers(0, 2**32 - 1),
    exponent=st.floats(-37, 37),
    dtype=st.sampled_from([jnp.float32, jnp.bfloat16, jnp.complex64]),
)
def test_updates_of_every_scale_get_unit_rms(seed, exponent, dtype):
    x = np.random.default_rng(seed).uniform(0.5, 1, (2, 6))
    g = jnp.asarray((x[0] + (1j * x[1] if dtype == jnp.complex64 else 0)) * 10.0**exponent, dtype)
    expected = flat(g) / rms(g)
    # bfloat16 keeps 8 bits.
    np.testing.assert_allclose(flat(unit(g)), expected, rtol=4e-3 if dtype == jnp.bfloat16 else 1e-6)


@pytest.mark.parametrize("scale", [6e-8, 1e-4, 1.0, 300.0, 65504.0])
def test_half_precision_is_summed_in_float32(scale):
    g = jnp.full(3000, scale, jnp.float16)  # a sum in float16 would stop at 2048
    chex.assert_trees_all_equal(unit(g), jnp.ones_like(g))


def test_the_largest_float_and_many_small_ones_get_unit_rms():
    largest = float(jnp.finfo(jnp.float32).max)
    chex.assert_trees_all_close(unit(jnp.full(1000, largest)), jnp.ones(1000), rtol=1e-6)
    # The square of each is lost in float32, their sum is not.
    chex.assert_trees_all_close(unit(jnp.full(10**6, 1e-21)), jnp.ones(10**6), rtol=1e-5)


def test_coordinates_of_many_scales_keep_their_ratios():
    g = jnp.array([1e-30, 1.0, 1e30])
    np.testing.assert_allclose(unit(g), np.array([1e-60, 1e-30, 1.0]) * np.sqrt(3), rtol=1e-6, atol=1e-37)


def test_leaves_of_several_precisions_share_one_rms_and_keep_their_dtypes():
    with enable_x64(True):
        for single, double in ((1e30, 1e200), (1e30, 1.0), (1e-30, 1e-200), (1e-30, 1e-25)):
            g = {
                "c": jnp.full(1, 1j * single, jnp.complex64),
                "d": jnp.full(2, double, jnp.float64),
                "f": jnp.full(2, single, jnp.float32),
                "h": jnp.zeros(2, jnp.float16),
            }
            u = unit(g)
            chex.assert_trees_all_equal_shapes_and_dtypes(u, g)
            largest = max(single, double)
            relative = {name: np.asarray(leaf, np.complex128) / largest for name, leaf in g.items()}
            expected = jax.tree.map(lambda leaf, relative=relative: leaf / rms(relative), relative)
            # What a precision cannot hold is zero there.
            chex.assert_trees_all_close(jax.tree.map(np.complex128, u), expected, rtol=1e-6, atol=1.2e-38)


def test_more_coordinates_than_an_integer_counts_are_normalized():
    tree = [jax.ShapeDtypeStruct((1_500_000_000,), jnp.float32)] * 2
    assert jax.eval_shape(unit, tree) == tree


def test_integers_become_floats():
    chex.assert_trees_all_close(unit(jnp.array([3, -4])), jnp.array([3.0, -4.0]) / 12.5**0.5, rtol=1e-6)


def test_an_infinite_coordinate_stops_the_others_and_an_undefined_one_all():
    np.testing.assert_array_equal(unit(jnp.array([jnp.inf, 1.0])), [np.nan, 0])
    assert np.all(np.isnan(unit(jnp.array([jnp.nan, 1.0]))))


@pytest.mark.parametrize("per_leaf", [True, False])
@pytest.mark.parametrize("tree", [{}, {"a": None}, {"a": jnp.zeros(3)}, {"a": jnp.zeros((0, 2))}])
def test_nothing_stays_nothing(tree, per_leaf):
    chex.assert_trees_all_equal(unit(tree, per_leaf=per_leaf), tree)


def test_a_leaf_of_zeros_does_not_disturb_the_others():
    u = unit({"a": jnp.zeros(3), "b": jnp.array([3.0, -4.0])}, per_leaf=True)
    chex.assert_trees_all_close(u, {"a": jnp.zeros(3), "b": jnp.array([3.0, -4.0]) / 12.5**0.5}, rtol=1e-6)


def test_its_derivative_is_that_of_the_formula():
    g, c = jnp.array([1.0, -2.0, 0.5]), jnp.array([0.3, 0.2, -1.0])
    u = unit(g)
    expected = (c - u * jnp.vdot(u, c) / 3) / rms(g)
    chex.assert_trees_all_close(jax.grad(lambda g: jnp.vdot(c, unit(g)))(g), expected, rtol=1e-5)
    assert np.all(np.isfinite(jax.grad(lambda g: jnp.vdot(c, unit(g)))(jnp.zeros(3))))


def test_stacey_is_free_of_scale_if_both_of_its_parts_are_normalized():
    params, gradients = random_problem()
    unit_rms = lpoptax.normalize_by_update_rms()
    primal = optax.chain(lpoptax.scale_by_lp_power(3.0, eps=0.0), unit_rms, optax.scale(-0.01))
    dual = optax.chain(unit_rms, lpoptax.mirror_descent(0.01, 3.0))
    optimizer = optax.chain(
        lpoptax.scale_by_interpolated_momentum(), lpoptax.stacey_coupling(primal, dual, 0.1)
    )
    scaled = [jax.tree.map(lambda leaf: 128 * leaf, g) for g in gradients]
    chex.assert_trees_all_close(
        trajectory(optimizer, params, scaled), trajectory(optimizer, params, gradients), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    "bad", ["RMS", "none", True, 2.0, ["rms"], jnp.ones(2), lpoptax.normalize_by_update_rms()]
)
@pytest.mark.parametrize("factory", [lpoptax.lpsgd, lpoptax.lpsgdm])
def test_other_normalizations_are_refused(factory, bad):
    with pytest.raises(ValueError, match="normalization must be one of None, 'rms', .*, got normalization="):
        factory(0.1, 3.0, normalization=bad)


def test_leaves_are_normalized_by_themselves_only_if_they_are_normalized():
    with pytest.raises(ValueError, match="per_leaf must be False without a normalization, got per_leaf=True"):
        lpoptax.lpsgdm(0.1, 3.0, per_leaf=True)


@every_normalization
@pytest.mark.parametrize("p", [1.1, 1.5, 3.0, np.inf])
@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1e-5, 1.0, 1e6])
def test_p_is_the_same_as_a_number_a_schedule_injected_and_traced(p, scale, normalization):
    g = scale * jnp.array([1.0, -2.0, 0.0, 0.5])

    def step(factory, p):
        optimizer = factory(1.0, p, normalization=normalization)
        return optimizer.update(g, optimizer.init(g))[0]

    number = step(lpoptax.lpsgd, p)
    assert np.isfinite(number).all()
    others = [
        step(lpoptax.lpsgd, lambda count: jnp.full_like(count, p, dtype=jnp.float32)),
        step(optax.inject_hyperparams(lpoptax.lpsgd), p),
        jax.jit(lambda p: step(lpoptax.lpsgd, p))(p),
    ]
    # A traced p - 1 is taken in float32, which at p = 1.1 is wrong by 2e-7, and 2^10 of it by 1e-5.
    for other in others:
        np.testing.assert_allclose(other, number, rtol=2e-5)


@pytest.mark.parametrize("p", [1.1, 1.5])
@pytest.mark.parametrize("scale", [1e-37, 1e-15, 1.0, 1e15])
def test_below_p_2_the_dual_norm_is_linear_in_the_gradient_at_every_scale(p, scale):
    g = jnp.array([1.0, -2.0, 0.5])

    def step(g):
        optimizer = lpoptax.lpsgd(1.0, p, normalization="dual_norm")
        return optimizer.update(g, optimizer.init(g))[0]

    np.testing.assert_allclose(step(scale * g), scale * step(g), rtol=1e-5)


@every_normalization
@whole_or_per_leaf
@pytest.mark.parametrize("p", [1.1, 1.5, 3.0])
def test_steps_stay_finite_while_gradients_vanish(p, normalization, per_leaf):
    optimizer = lpoptax.lpsgdm(1e-3, p, normalization=normalization, per_leaf=per_leaf)
    params = {"dead": jnp.ones(3), "alive": jnp.ones(2)}

    @jax.jit
    def visited(gradients):
        def step(carry, g):
            params, state = carry
            updates, state = optimizer.update(g, state, params)
            return (optax.apply_updates(params, updates), state), updates

        return jax.lax.scan(step, (params, optimizer.init(params)), gradients)[1]

    steps = jnp.arange(1500)
    first = jnp.where(steps == 0, 1.0, 0.0)[:, None] * jnp.array([[1.0, -2.0, 0.5]])
    one_stops = {"dead": first, "alive": jnp.ones((1500, 2))}
    all_stop = {"dead": first, "alive": jnp.where(steps < 10, 1.0, 0.0)[:, None] * jnp.ones((1, 2))}
    for gradients in (one_stops, all_stop):
        chex.assert_tree_all_finite(visited(gradients))


# Without eps the sign jumps at zero, and the length of a step with it.
@pytest.mark.parametrize(
    ("p", "eps"), [(1.5, 0.0), (2.0, 0.0), (3.0, 0.0), (1.5, 1e-8), (2.0, 1e-8), (3.0, 1e-8), (np.inf, 1e-8)]
)
@pytest.mark.parametrize("normalization", [None, "rms", "dual_norm"])
def test_second_derivatives_are_finite_where_a_coordinate_is_zero(p, normalization, eps):
    optimizer = lpoptax.lpsgd(1.0, p, eps, normalization=normalization)
    c = jnp.array([0.3, 0.2, -1.0])

    def slope(g):
        return jnp.vdot(c, optimizer.update(g, optimizer.init(g))[0])

    assert np.isfinite(jax.hessian(slope)(jnp.array([1.0, 0.0, -2.0]))).all()


def test_all_lengths_of_a_step_and_decay_have_states_of_one_structure():
    params, _ = random_problem(steps=1)
    settings = [{}, {"normalization": "rms"}, {"normalization": "dual_norm", "per_leaf": True}]
    settings += [{"weight_decay": 0.0}, {"weight_decay": 0.1}, {"weight_decay": lambda step: 0.1}]
    states = [lpoptax.lpsgdm(0.1, 3.0, **more).init(params) for more in settings]
    for state in states[1:]:
        chex.assert_trees_all_equal_structs(state, states[0])
