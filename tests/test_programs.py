"""Programs of the libraries that people train with, each with an optimizer of ours: they run, and they learn.

Of Optax's wrappers `MultiSteps`, `masked`, `partition`, `apply_if_finite`, `lookahead` and `schedule_free`
are in `tests/test_contract.py`, for every optimizer.
"""

import pickle

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import optimistix
import orbax.checkpoint as ocp
import pytest
from flax import nnx, serialization
from flax.training.train_state import TrainState
from jax.test_util import check_grads
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from numpyro.optim import optax_to_numpyro

import lpoptax

STEPS = 100
X = np.random.default_rng(0).standard_normal((32, 3)).astype(np.float32)
Y = X @ np.array([[1.0], [-2.0], [0.5]], np.float32)


def unit_rms(steps=STEPS):
    return lpoptax.lpsgdm(
        optax.cosine_decay_schedule(0.1, steps), lpoptax.cosine_p_schedule(12.0, steps), normalization="rms"
    )


def accelerated():
    return lpoptax.stacey(optax.cosine_decay_schedule(0.1, STEPS), 3.0, mirror_p=3.0, alpha=0.01, tau=0.1)


def mean_square(predict, params):
    return jnp.mean((predict(params, X) - Y) ** 2)


def linear(params, x):
    return x @ params["w"] + params["b"]


START = {"w": jnp.full((3, 1), 0.1), "b": jnp.zeros((1, 1))}


def descend(optimizer, loss, params, steps=STEPS):
    """Returns the losses before and after training in one scan."""

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    (final, _), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, length=steps))(
        (params, optimizer.init(params))
    )
    return loss(params), loss(final)


# Each takes an optimizer and returns the loss before and after.


def haiku(optimizer):
    network = hk.without_apply_rng(hk.transform(lambda x: hk.Linear(1)(x)))
    params = network.init(jax.random.key(0), X)
    return descend(optimizer, lambda params: mean_square(network.apply, params), params)


def equinox(optimizer):
    model = eqx.nn.MLP(3, 1, 8, 1, activation=jnp.tanh, key=jax.random.key(0))

    @eqx.filter_value_and_grad
    def loss(model):
        return jnp.mean((jax.vmap(model)(X) - Y) ** 2)

    @eqx.filter_jit
    def step(model, state):
        value, grads = loss(model)
        updates, state = optimizer.update(grads, state, eqx.filter(model, eqx.is_inexact_array))
        return eqx.apply_updates(model, updates), state, value

    state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    first, _ = loss(model)
    for _ in range(STEPS):
        model, state, _ = step(model, state)
    return first, loss(model)[0]


def flax_nnx(optimizer):
    model = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    trained = nnx.Optimizer(model, optimizer, wrt=nnx.Param)

    def loss(model):
        return jnp.mean((model(X) - Y) ** 2)

    @nnx.jit
    def step(model, trained):
        trained.update(model, nnx.grad(loss)(model))

    first = loss(model)
    for _ in range(STEPS):
        step(model, trained)
    return first, loss(model)


def flax_linen(optimizer):
    model = nn.Dense(1)
    state = TrainState.create(
        apply_fn=model.apply, params=model.init(jax.random.key(0), X)["params"], tx=optimizer
    )

    def loss(params):
        return jnp.mean((model.apply({"params": params}, X) - Y) ** 2)

    first = loss(state.params)
    step = jax.jit(lambda state: state.apply_gradients(grads=jax.grad(loss)(state.params)))
    for _ in range(STEPS):
        state = step(state)
    return first, loss(state.params)


def numpyro_svi(optimizer):
    def model(x, y):
        w = numpyro.sample("w", dist.Normal(0, 1).expand([3, 1]).to_event(2))
        numpyro.sample("y", dist.Normal(x @ w, 0.5).to_event(2), obs=y)

    svi = SVI(model, AutoNormal(model), optax_to_numpyro(optimizer), Trace_ELBO())
    losses = svi.run(jax.random.key(0), STEPS, X, Y, progress_bar=False).losses
    return losses[0], losses[-1]


def optimistix_minimise(optimizer):
    solver = optimistix.OptaxMinimiser(optimizer, rtol=0.0, atol=0.0)
    found = optimistix.minimise(
        lambda params, _: mean_square(linear, params), solver, START, max_steps=STEPS, throw=False
    )
    return mean_square(linear, START), mean_square(linear, found.value)


def mechanize(optimizer):
    return descend(optax.contrib.mechanize(optimizer), lambda p: mean_square(linear, p), START, 3 * STEPS)


def reduce_on_plateau(optimizer):
    chained = optax.chain(optimizer, optax.contrib.reduce_on_plateau(patience=5))

    def step(carry, _):
        params, state = carry
        value, grads = jax.value_and_grad(lambda p: mean_square(linear, p))(params)
        updates, state = chained.update(grads, state, params, value=value)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (START, chained.init(START)), length=STEPS)
    return mean_square(linear, START), mean_square(linear, params)


def split_real_and_imaginary(optimizer):
    optimizer = optax.contrib.split_real_and_imaginary(optimizer)

    def loss(z):
        return jnp.sum(jnp.abs(z - jnp.array([1.0 + 2.0j, -0.5j])) ** 2)

    start = jnp.full(2, 0.1, jnp.complex64)
    z, state = start, optimizer.init(start)
    for _ in range(STEPS):
        # JAX's gradient of a real loss is the conjugate of the direction of ascent.
        updates, state = optimizer.update(jnp.conj(jax.grad(loss)(z)), state, z)
        z = optax.apply_updates(z, updates)
    return loss(start), loss(z)


PROGRAMS = {
    "haiku": haiku,
    "equinox": equinox,
    "flax nnx": flax_nnx,
    "flax linen": flax_linen,
    "numpyro": numpyro_svi,
    "optimistix": optimistix_minimise,
    "mechanize": mechanize,
    "reduce_on_plateau": reduce_on_plateau,
    "split_real_and_imaginary": split_real_and_imaginary,
}


@pytest.mark.parametrize("build", [unit_rms, pytest.param(accelerated, marks=pytest.mark.slow)])
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_it_learns(program, build):
    first, last = program(build())
    assert last < 0.5 * first


# States that are saved


def trained_state(optimizer, steps=5):
    params, state = START, optimizer.init(START)
    for _ in range(steps):
        grads = jax.grad(lambda p: mean_square(linear, p))(params)
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def by_flax(state, like, folder):
    return serialization.from_bytes(like, serialization.to_bytes(state))


def by_pickle(state, like, folder):
    return pickle.loads(pickle.dumps(state))


def by_orbax(state, like, folder):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "state", state)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "state", like)


@pytest.mark.parametrize("restore", [by_flax, by_pickle, by_orbax])
@pytest.mark.parametrize("build", [unit_rms, accelerated])
def test_a_saved_state_is_restored(build, restore, tmp_path):
    optimizer = build()
    _, state = trained_state(optimizer)
    restored = restore(state, optimizer.init(START), tmp_path)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    for leaf, other in zip(*map(jax.tree.leaves, (restored, state)), strict=True):
        np.testing.assert_array_equal(leaf, other)


@pytest.mark.parametrize(
    "other",
    [
        lpoptax.lpsgdm(0.1, lpoptax.cosine_p_schedule(6.0, 500)),
        lpoptax.lpsgdm(0.1, 2.0, normalization="dual_norm", per_leaf=True),
        lpoptax.lpsgdm(0.1, 2.0, weight_decay=0.1),
        lpoptax.lpsgdm(0.1, optax.warmup_cosine_decay_schedule(2.0, 8.0, 5, 50, end_value=2.0)),
    ],
    ids=["another schedule of p", "another normalization", "weight decay", "an Optax schedule as p"],
)
def test_a_checkpoint_serves_with_other_settings_of_the_optimizer(other, tmp_path):
    before = lpoptax.lpsgdm(0.1, lpoptax.cosine_p_schedule(12.0, 100))
    params, state = trained_state(before)
    restored = by_orbax(state, other.init(START), tmp_path)
    updates, _ = other.update(params, restored, params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(updates))
    counts = [c for c in jax.tree.leaves(restored) if c.dtype == np.int32]
    assert counts
    assert all(c == 5 for c in counts)


# Transformations of a training


def test_an_ensemble_trains_under_vmap():
    def final_loss(scale):
        params = jax.tree.map(lambda leaf: scale * leaf, START)
        # Few steps: later the loss is that of rounding.
        return descend(unit_rms(), lambda p: mean_square(linear, p), params, steps=10)[1]

    scales = jnp.array([0.5, 1.0, 4.0])
    together = jax.vmap(final_loss)(scales)
    np.testing.assert_allclose(together, [final_loss(scale) for scale in scales], rtol=1e-4)


@pytest.mark.parametrize("normalization", [None, "rms", "dual_norm"])
def test_the_gradient_through_updates_is_that_of_finite_differences(normalization):
    def final_loss(settings):
        optimizer = lpoptax.lpsgdm(settings[0], settings[1], normalization=normalization)
        return descend(optimizer, lambda p: mean_square(linear, p), START, steps=3)[1]

    check_grads(final_loss, (jnp.array([0.05, 1.6]),), order=1, modes=["rev"], rtol=2e-2, eps=1e-3)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("build", [unit_rms, accelerated])
def test_a_step_is_exported_for_other_platforms(build, platform):
    optimizer = build()
    arguments = START, optimizer.init(START), START
    exported = jax.export.export(jax.jit(lambda g, s, p: optimizer.update(g, s, p)), platforms=[platform])(
        *arguments
    )
    assert exported.platforms == (platform,)
    assert exported.mlir_module_serialized


@pytest.mark.parametrize("normalization", [None, "rms", "dual_norm"])
def test_a_step_is_exported_for_every_shape(normalization):
    optimizer = lpoptax.lpsgdm(0.1, 1.7, normalization=normalization)
    (rows,) = jax.export.symbolic_shape("rows")
    shape = jax.ShapeDtypeStruct((rows, 3), jnp.float32)
    exported = jax.export.export(jax.jit(lambda g: optimizer.update(g, optimizer.init(g))[0]))(shape)
    g = jnp.asarray(X[:5])
    # The size is a number in one and a variable in the other.
    np.testing.assert_allclose(exported.call(g), optimizer.update(g, optimizer.init(g))[0], rtol=1e-6)
