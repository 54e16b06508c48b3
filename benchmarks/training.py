"""The training loop: one for every model, dataset and optimizer."""

import time
from collections.abc import Generator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from benchmarks.checkpoints import Checkpoints
from benchmarks.datasets import Dataset, Split
from benchmarks.models import MODELS

Variables = Any  # a tree of arrays: nnx.State is generic in types that say nothing here.


class Epoch(NamedTuple):
    """What is measured after each epoch, with the parameters as they are then."""

    train_nll: float  # mean negative log likelihood over the training images.
    held_out_nll: float
    held_out_top1: float  # share of right answers, 0 to 1.
    seconds: float  # time spent in training steps, evaluation excluded.


class TrainState(NamedTuple):
    """All arrays that change during training."""

    params: Variables
    model_state: Variables  # all else in the model: batch statistics, random streams.
    opt_state: optax.OptState


class Progress(NamedTuple):
    """How far the training is. With the seed it also tells the order of the images to come."""

    step: int
    seconds: float  # spent in the steps of the current epoch.
    epochs: list[Epoch]


def train(
    model_name: str,
    dataset: Dataset,
    held_out: Split,
    optimizer: optax.GradientTransformation,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    mesh: jax.sharding.Mesh | None = None,
    checkpoints: Checkpoints | None = None,
) -> Generator[Epoch, None, TrainState]:
    """Trains a new model on the training split; yields the measurements of each epoch.

    The seed decides the initial parameters and the order of the images. Runs that share
    `optimizer` (the same object) share its compiled step. Batches are split over the first
    axis of `mesh`, which may span processes (default: one device). With `checkpoints` a run
    that was cut off continues, and yields the epochs before that once more; several
    processes cannot have them yet. Returns the trained state.
    """
    if checkpoints is not None and jax.process_count() > 1:
        # Each would decide by its own clock when to save, and wait for the others.
        raise ValueError("checkpoints must be None where several processes train.")
    mesh = mesh or jax.make_mesh((1,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:1])
    graphdef, state = _initial_state(model_name, dataset, optimizer, seed, mesh)
    progress = Progress(0, 0.0, [])
    if checkpoints is not None:
        state, found = checkpoints.open(state, _plain(progress))
        progress = _from_plain(found)
    yield from progress.epochs
    steps = steps_per_epoch(dataset, batch_size)
    for epoch in range(len(progress.epochs), epochs):
        batches = _batches(len(dataset.train.labels), batch_size, seed, epoch)
        start = time.perf_counter() - progress.seconds
        for batch in batches[progress.step - epoch * steps :]:
            state = _train_step(graphdef, optimizer, state, *_place(dataset.train, batch, mesh))
            progress = progress._replace(step=progress.step + 1)
            if checkpoints is not None and checkpoints.due():
                jax.block_until_ready(state)  # type: ignore[no-untyped-call]
                progress = progress._replace(seconds=time.perf_counter() - start)
                _save(checkpoints, state, progress)
                start = time.perf_counter() - progress.seconds
        jax.block_until_ready(state)  # type: ignore[no-untyped-call]
        seconds = time.perf_counter() - start
        measured = _measure(graphdef, state, dataset.train, held_out, seconds)
        progress = Progress(progress.step, 0.0, [*progress.epochs, measured])
        yield measured
    if checkpoints is not None:
        _save(checkpoints, state, progress)
    return state


def steps_per_epoch(dataset: Dataset, batch_size: int) -> int:
    """Returns the number of whole batches in the training split."""
    return len(dataset.train.labels) // batch_size


def _initial_state(
    model_name: str,
    dataset: Dataset,
    optimizer: optax.GradientTransformation,
    seed: int,
    mesh: jax.sharding.Mesh,
) -> tuple[nnx.GraphDef[Any], TrainState]:
    channels = dataset.train.images.shape[-1]
    model = MODELS[model_name](channels=channels, classes=dataset.classes, rngs=nnx.Rngs(seed))
    graphdef, params, model_state = nnx.split(model, nnx.Param, ...)  # type: ignore[misc]
    state = TrainState(params, model_state, optimizer.init(params))
    replicated = NamedSharding(mesh, PartitionSpec())  # type: ignore[no-untyped-call]
    return graphdef, jax.tree.map(lambda leaf: _put(leaf, replicated), state)


def _put(leaf: jax.Array, sharding: NamedSharding) -> jax.Array:
    # Keys cannot be put on the devices of other processes, but their numbers can.
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = jax.device_put(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    return jax.device_put(leaf, sharding)


def _save(checkpoints: Checkpoints, state: TrainState, progress: Progress) -> None:
    checkpoints.save(progress.step, state, _plain(progress))
    if checkpoints.interrupted():
        raise KeyboardInterrupt


def _plain(progress: Progress) -> dict[str, Any]:
    return {**progress._asdict(), "epochs": [epoch._asdict() for epoch in progress.epochs]}


def _from_plain(found: dict[str, Any]) -> Progress:
    return Progress(**{**found, "epochs": [Epoch(**epoch) for epoch in found["epochs"]]})


def _batches(images: int, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    # Seeded by the epoch, so that any epoch can be run again without those before it.
    order = np.random.default_rng((seed, epoch)).permutation(images)
    whole = images // batch_size
    return order[: whole * batch_size].reshape(whole, batch_size)


def _place(split: Split, batch: np.ndarray, mesh: jax.sharding.Mesh) -> tuple[jax.Array, jax.Array]:
    """Returns images and labels of the batch, of which each process loads its own part."""
    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names[0]))  # type: ignore[no-untyped-call]

    def place(array: np.ndarray) -> jax.Array:
        shape = (len(batch), *array.shape[1:])
        return jax.make_array_from_callback(
            shape,
            sharding,
            lambda index: array[batch[index[:1]]],  # type: ignore[index]
        )

    return place(split.images), place(split.labels)


@partial(jax.jit, static_argnames=("graphdef", "optimizer"), donate_argnames="state")
def _train_step(
    graphdef: nnx.GraphDef[Any],
    optimizer: optax.GradientTransformation,
    state: TrainState,
    images: jax.Array,
    labels: jax.Array,
) -> TrainState:
    def loss(params: Variables) -> tuple[jax.Array, Variables]:
        model = nnx.merge(graphdef, params, state.model_state, copy=True)
        model.train()
        return _nll(model(images), labels), nnx.state(model, nnx.Not(nnx.Param))

    grads, model_state = jax.grad(loss, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    return TrainState(optax.apply_updates(state.params, updates), model_state, opt_state)


def _measure(
    graphdef: nnx.GraphDef[Any], state: TrainState, trained: Split, held_out: Split, seconds: float
) -> Epoch:
    train_nll, _ = _evaluate(graphdef, state.params, state.model_state, trained.images, trained.labels)
    held_out_nll, held_out_top1 = _evaluate(
        graphdef, state.params, state.model_state, held_out.images, held_out.labels
    )
    return Epoch(float(train_nll), float(held_out_nll), float(held_out_top1), seconds)


@partial(jax.jit, static_argnames="graphdef")
def _evaluate(
    graphdef: nnx.GraphDef[Any],
    params: Variables,
    model_state: Variables,
    images: jax.Array,
    labels: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    model = nnx.merge(graphdef, params, model_state)
    model.eval()
    logits = model(images)
    return _nll(logits, labels), (logits.argmax(axis=-1) == labels).mean()


def _nll(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
