"""What a run compiles: the state that it trains, one step, and the evaluation of a batch."""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from benchmarks.config.schedules import Swept, build_optimizer, swept, without_swept
from benchmarks.config.settings import Settings
from benchmarks.data.augmentation import augment, normalise
from benchmarks.data.batches import Batch
from benchmarks.data.objectives import Objective
from benchmarks.data.registry import Dataset
from benchmarks.models.registry import build_model

Variables = Any  # a tree of arrays: nnx.State is generic in types that say nothing here.


class Totals(NamedTuple):
    """Sums over what was seen, in float32: they stay on the device until someone looks."""

    nll: jax.Array
    metric: jax.Array  # of classes: how many answers are right.
    number: jax.Array  # of the images, or of the tokens.


class TrainState(NamedTuple):
    """All arrays that change during training."""

    params: Variables
    model_state: Variables  # all else in the model: batch statistics, random streams.
    opt_state: optax.OptState
    totals: Totals  # of the current epoch.


class Program(NamedTuple):
    """What is compiled: nothing in it changes during a run, nor with what is swept over, nor the seed."""

    graphdef: nnx.GraphDef[Any]
    evaluated: nnx.GraphDef[Any]  # the same model, computing in float32.
    settings: Settings
    steps_per_epoch: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: str | None
    objective: Objective


def steps_per_epoch(settings: Settings, dataset: Dataset) -> int:
    """Returns the number of whole batches in the training split."""
    return len(dataset.train) // settings.batch_size


def start(settings: Settings, dataset: Dataset, mesh: Mesh) -> tuple[Program, TrainState]:
    """Returns the program of the run, and the state before its first step."""
    program, state = initial(settings, dataset)
    return program, _replicated(state, mesh)


def initial(settings: Settings, dataset: Dataset) -> tuple[Program, TrainState]:
    """Returns the program of the run, and the state before its first step, which no device is chosen for."""

    def model(dtype: str) -> nnx.Module:
        return build_model(settings.model, dataset.shape, dataset.classes, dtype=dtype, seed=settings.seed)

    graphdef, params, model_state = nnx.split(model(settings.dtype), nnx.Param, ...)  # type: ignore[misc]
    per_epoch = steps_per_epoch(settings, dataset)
    program = Program(
        graphdef,
        nnx.graphdef(nnx.eval_shape(lambda: model("float32"))),
        without_swept(settings),
        per_epoch,
        dataset.mean,
        dataset.std,
        dataset.augment,
        dataset.objective,
    )
    opt_state = build_optimizer(settings, per_epoch).init(params)
    return program, TrainState(params, model_state, opt_state, _nothing())


def arguments(settings: Settings) -> Swept:
    """Returns what the step takes of the settings: arrays, so that no number is compiled into it."""
    return jax.tree.map(jnp.asarray, swept(settings))


def zeros(mesh: Mesh) -> Totals:
    """Returns the totals of nothing, on every device."""
    return _replicated(_nothing(), mesh)


def _nothing() -> Totals:
    return Totals(*(jnp.zeros(()) for _ in Totals._fields))


def _replicated(tree: Any, mesh: Mesh) -> Any:
    sharding = NamedSharding(mesh, PartitionSpec())  # type: ignore[no-untyped-call]
    return jax.tree.map(lambda leaf: _put(leaf, sharding), tree)


def _put(leaf: jax.Array, sharding: NamedSharding) -> jax.Array:
    # What is on a device cannot be put on those of other processes, but numbers can.
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = jax.device_put(np.asarray(jax.random.key_data(leaf)), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    return jax.device_put(np.asarray(leaf), sharding)


@functools.lru_cache(maxsize=8)  # a sweep goes through seeds, learning rates and p in turn.
def compiled_step(program: Program) -> Callable[..., tuple[TrainState, jax.Array]]:
    """Returns the training step, which updates `state` in place."""
    return jax.jit(partial(train_step, program), donate_argnames="state")


def train_step(
    program: Program, state: TrainState, batch: Batch, values: Swept, seed: ArrayLike, step: ArrayLike
) -> tuple[TrainState, jax.Array]:
    """Returns the state after a step, and the sum of the NLL over its batch."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    # The key has served if images are augmented.
    for_task = jax.random.fold_in(key, 1)
    images = augment(program.augment, key, batch.inputs)
    inputs, targets = program.objective.task(for_task, images, batch.labels, partial(_scaled, program))

    def loss(params: Variables) -> tuple[jax.Array, tuple[Totals, Variables]]:
        model = nnx.merge(program.graphdef, params, state.model_state, copy=True)
        model.train()
        totals = _sums(program.objective, model(*inputs), targets, batch.weights)
        return totals.nll / totals.number, (totals, nnx.state(model, nnx.Not(nnx.Param)))

    grads, (totals, model_state) = jax.grad(loss, has_aux=True)(state.params)
    optimizer = build_optimizer(program.settings, program.steps_per_epoch, values)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    added = jax.tree.map(jnp.add, state.totals, totals)
    return TrainState(params, model_state, opt_state, added), totals.nll


@functools.lru_cache(maxsize=8)
def compiled_evaluation(program: Program) -> Callable[..., Totals]:
    """Returns what adds a batch of what is held out to the totals, in float32."""

    @jax.jit
    def evaluate(params: Variables, model_state: Variables, totals: Totals, batch: Batch) -> Totals:
        model = nnx.merge(program.evaluated, params, model_state)
        model.eval()
        # The same key each time: what is random does not differ between evaluations.
        task = program.objective.task(
            jax.random.key(0), batch.inputs, batch.labels, partial(_scaled, program)
        )
        sums = _sums(program.objective, model(*task.inputs), task.targets, batch.weights)
        return jax.tree.map(jnp.add, totals, sums)

    return evaluate


def _scaled(program: Program, inputs: jax.Array) -> jax.Array:
    """Returns what the model takes: images are normalised, tokens stay as they are."""
    return normalise(inputs, program.mean, program.std) if program.mean else inputs


def _sums(objective: Objective, answers: jax.Array, targets: jax.Array, weights: jax.Array) -> Totals:
    """Returns sums over the examples, of text over all of their tokens."""
    nll, metric = objective.figures(answers, targets)
    weights = jnp.broadcast_to(jnp.expand_dims(weights, range(1, nll.ndim)), nll.shape)
    return Totals(jnp.sum(weights * nll), jnp.sum(weights * metric), jnp.sum(weights))


def means(totals: Totals) -> tuple[float, float]:
    """Returns the NLL and the metric."""
    nll, metric, number = (float(total) for total in totals)
    return nll / number, metric / number
