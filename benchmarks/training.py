"""The training loop: one for every model, dataset, optimizer and set of devices."""

import collections
import functools
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from benchmarks.augmentation import augment, normalise
from benchmarks.batches import Batch, evaluation_batches, training_batches
from benchmarks.checkpoints import Checkpoints
from benchmarks.datasets import Dataset
from benchmarks.models import SMALLEST, build_model
from benchmarks.optimizers import build_optimizer
from benchmarks.settings import Settings, SettingsError

Variables = Any  # a tree of arrays: nnx.State is generic in types that say nothing here.
SECONDS_BETWEEN_LOOKS = 1.0


class Epoch(NamedTuple):
    """What is measured in each epoch."""

    train_nll: float  # mean over the images as they were trained on: augmented, before their step.
    train_top1: float  # share of right answers, 0 to 1, of the same.
    held_out_nll: float  # after the epoch, in float32, over the whole split.
    held_out_top1: float
    seconds: float  # evaluation excluded.
    waiting: float  # seconds of these that the loop waited for the next batch.


class Totals(NamedTuple):
    """Sums over what was seen, in float32: they stay on the device until someone looks."""

    nll: jax.Array
    right: jax.Array
    images: jax.Array


class TrainState(NamedTuple):
    """All arrays that change during training."""

    params: Variables
    model_state: Variables  # all else in the model: batch statistics, random streams.
    opt_state: optax.OptState
    totals: Totals  # of the current epoch.


class Progress(NamedTuple):
    """How far the training is. With the seed it also tells the images to come."""

    step: int
    seconds: float  # of the current epoch.
    waiting: float
    epochs: list[Epoch]


class Look(NamedTuple):
    """What a user sees while an epoch is under way."""

    step: int
    steps: int  # of the whole run.
    nll: float  # mean over the epoch so far.
    top1: float


class Program(NamedTuple):
    """What is compiled: nothing in it changes during a run, nor from one seed to the next."""

    graphdef: nnx.GraphDef[Any]
    evaluated: nnx.GraphDef[Any]  # the same model, computing in float32.
    optimizer: optax.GradientTransformation
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: str | None


def all_devices() -> Mesh:
    """Returns a mesh over which batches are split: every device of every process."""
    return jax.make_mesh((jax.device_count(),), ("batch",), axis_types=(AxisType.Auto,))


def steps_per_epoch(settings: Settings, dataset: Dataset) -> int:
    """Returns the number of whole batches in the training split."""
    return len(dataset.train) // settings.batch_size


def train(
    settings: Settings,
    dataset: Dataset,
    *,
    mesh: Mesh | None = None,
    checkpoints: Checkpoints | None = None,
    watch: Callable[[Look], None] | None = None,
) -> Generator[Epoch, None, TrainState]:
    """Trains a new model on the training split; yields the measurements of each epoch.

    Runs that differ in the seed only share their compiled step. Batches are split over the
    first axis of `mesh`, which may span processes (default: all devices). With `checkpoints`
    a run that was cut off continues, and yields the epochs before that once more. `watch` is
    called about once a second. Returns the trained state.
    """
    mesh = all_devices() if mesh is None else mesh
    per_epoch = steps_per_epoch(settings, dataset)
    check(settings, dataset, mesh)
    program, state = start(settings, dataset, mesh)
    step = compiled_step(program)
    progress = Progress(0, 0.0, 0.0, [])
    if checkpoints is not None:
        state, found = checkpoints.open(state, _plain(progress))
        progress = _from_plain(found)
    yield from progress.epochs
    total = settings.epochs * per_epoch
    batches = training_batches(
        dataset.train, settings.batch_size, mesh, seed=settings.seed, start=progress.step, stop=total
    )
    for epoch in range(len(progress.epochs), settings.epochs):
        clock, queue = _Clock(progress), _Queue(mesh)
        while progress.step < (epoch + 1) * per_epoch:
            state, nll = step(state, clock.next(batches), settings.seed, progress.step)
            queue.add(nll)
            progress = progress._replace(step=progress.step + 1)
            if watch is not None and clock.time_to_look():
                watch(_look(progress.step, total, state.totals))
            if checkpoints is not None and checkpoints.due():
                jax.block_until_ready(state)  # type: ignore[no-untyped-call]
                progress = clock.read(progress)
                _save(checkpoints, state, progress)
                clock = _Clock(progress)
        jax.block_until_ready(state)  # type: ignore[no-untyped-call]
        measured = _measure(program, state, clock.read(progress), settings, dataset, mesh)
        state = state._replace(totals=_zeros(mesh))
        progress = Progress(progress.step, 0.0, 0.0, [*progress.epochs, measured])
        yield measured
        if checkpoints is not None and checkpoints.due(epoch_ends=True):
            _save(checkpoints, state, progress)
    if checkpoints is not None:
        _save(checkpoints, state, progress)
    return state


def check(settings: Settings, dataset: Dataset, mesh: Mesh) -> None:
    """Refuses settings that cannot be run with this data on these devices."""
    devices, images = mesh.shape[mesh.axis_names[0]], len(dataset.train)
    if settings.batch_size % devices:
        raise SettingsError(
            f"a batch of {settings.batch_size} cannot be divided over {devices} devices: "
            f"name a multiple of {devices}"
        )
    if settings.batch_size > images:
        raise SettingsError(
            f"a batch of {settings.batch_size} is more than the {images} training images "
            f"of {settings.dataset}"
        )
    height, width, _ = dataset.shape
    if min(height, width) < SMALLEST.get(settings.model, 1):
        least = SMALLEST[settings.model]
        raise SettingsError(
            f"{settings.model} needs images of {least} x {least} pixels or more; "
            f"those of {settings.dataset} have {height} x {width}"
        )
    steps, warmup = settings.epochs * steps_per_epoch(settings, dataset), settings.warmup_steps or 0
    if settings.schedule == "warmup_cosine" and warmup >= steps:
        raise SettingsError(
            f"a warm-up of {warmup} steps leaves none of the {steps} of the run: "
            f"name fewer --warmup-steps or more --epochs"
        )


def start(settings: Settings, dataset: Dataset, mesh: Mesh) -> tuple[Program, TrainState]:
    """Returns the program of the run, and the state before its first step."""

    def model(dtype: str) -> nnx.Module:
        return build_model(settings.model, dataset.shape, dataset.classes, dtype=dtype, seed=settings.seed)

    graphdef, params, model_state = nnx.split(model(settings.dtype), nnx.Param, ...)  # type: ignore[misc]
    optimizer = build_optimizer(settings, steps_per_epoch(settings, dataset))
    program = Program(
        graphdef,
        nnx.graphdef(nnx.eval_shape(lambda: model("float32"))),
        optimizer,
        dataset.mean,
        dataset.std,
        dataset.augment,
    )
    state = TrainState(params, model_state, optimizer.init(params), _zeros(mesh))
    return program, _replicated(state, mesh)


def _zeros(mesh: Mesh) -> Totals:
    return _replicated(Totals(*(jnp.zeros(()) for _ in Totals._fields)), mesh)


def _replicated(tree: Any, mesh: Mesh) -> Any:
    sharding = NamedSharding(mesh, PartitionSpec())  # type: ignore[no-untyped-call]
    return jax.tree.map(lambda leaf: _put(leaf, sharding), tree)


def _put(leaf: jax.Array, sharding: NamedSharding) -> jax.Array:
    # What is on a device cannot be put on those of other processes, but numbers can.
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = jax.device_put(np.asarray(jax.random.key_data(leaf)), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    return jax.device_put(np.asarray(leaf), sharding)


class _Clock:
    """The times of an epoch, from where its progress left them."""

    def __init__(self, progress: Progress) -> None:
        self._start = time.perf_counter() - progress.seconds
        self._waiting = progress.waiting
        self._looked = time.perf_counter()

    def next(self, batches: Iterator[Batch]) -> Batch:
        start = time.perf_counter()
        batch = next(batches)
        self._waiting += time.perf_counter() - start
        return batch

    def time_to_look(self) -> bool:
        due = time.perf_counter() - self._looked >= SECONDS_BETWEEN_LOOKS
        if due:
            self._looked = time.perf_counter()
        return due

    def read(self, progress: Progress) -> Progress:
        return progress._replace(seconds=time.perf_counter() - self._start, waiting=self._waiting)


class _Queue:
    """Lets the steps run ahead of the devices, so that these never wait, but not by all of an epoch."""

    def __init__(self, mesh: Mesh) -> None:
        # Devices made of one CPU share its threads: steps that wait for each other there lock up.
        virtual = jax.default_backend() == "cpu" and mesh.size > 1
        self._steps: collections.deque[jax.Array] = collections.deque()
        self._ahead = 0 if virtual else 8

    def add(self, result: jax.Array) -> None:
        self._steps.append(result)
        if len(self._steps) > self._ahead:
            self._steps.popleft().block_until_ready()


def _look(step: int, steps: int, totals: Totals) -> Look:
    nll, top1 = _means(totals)
    return Look(step, steps, nll, top1)


def _means(totals: Totals) -> tuple[float, float]:
    nll, right, images = (float(total) for total in totals)
    return nll / images, right / images


def _save(checkpoints: Checkpoints, state: TrainState, progress: Progress) -> None:
    checkpoints.save(progress.step, state, _plain(progress))
    if checkpoints.stops():
        raise KeyboardInterrupt


def _plain(progress: Progress) -> dict[str, Any]:
    return {**progress._asdict(), "epochs": [epoch._asdict() for epoch in progress.epochs]}


def _from_plain(found: dict[str, Any]) -> Progress:
    return Progress(**{**found, "epochs": [Epoch(**epoch) for epoch in found["epochs"]]})


@functools.lru_cache(maxsize=8)  # a sweep goes through the seeds of a setting in turn.
def compiled_step(program: Program) -> Callable[..., tuple[TrainState, jax.Array]]:
    """Returns the training step, which updates `state` in place."""

    @partial(jax.jit, donate_argnames="state")
    def train_step(state: TrainState, batch: Batch, seed: int, step: int) -> tuple[TrainState, jax.Array]:
        key = jax.random.fold_in(jax.random.key(seed), step)
        images = normalise(augment(program.augment, key, batch.images), program.mean, program.std)

        def loss(params: Variables) -> tuple[jax.Array, tuple[Totals, Variables]]:
            model = nnx.merge(program.graphdef, params, state.model_state, copy=True)
            model.train()
            totals = _sums(model(images), batch)
            return totals.nll / totals.images, (totals, nnx.state(model, nnx.Not(nnx.Param)))

        grads, (totals, model_state) = jax.grad(loss, has_aux=True)(state.params)
        updates, opt_state = program.optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        added = jax.tree.map(jnp.add, state.totals, totals)
        return TrainState(params, model_state, opt_state, added), totals.nll

    return train_step


@functools.lru_cache(maxsize=8)
def _compiled_evaluation(program: Program) -> Callable[..., Totals]:
    @jax.jit
    def evaluate(params: Variables, model_state: Variables, totals: Totals, batch: Batch) -> Totals:
        model = nnx.merge(program.evaluated, params, model_state)
        model.eval()
        logits = model(normalise(batch.images, program.mean, program.std))
        return jax.tree.map(jnp.add, totals, _sums(logits, batch))

    return evaluate


def _sums(logits: jax.Array, batch: Batch) -> Totals:
    logits = logits.astype(jnp.float32)
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
    right = logits.argmax(axis=-1) == batch.labels
    return Totals(jnp.sum(batch.weights * nll), jnp.sum(batch.weights * right), jnp.sum(batch.weights))


def _measure(
    program: Program, state: TrainState, progress: Progress, settings: Settings, dataset: Dataset, mesh: Mesh
) -> Epoch:
    evaluate, totals, queue = _compiled_evaluation(program), _zeros(mesh), _Queue(mesh)
    for batch in evaluation_batches(dataset.held_out, settings.batch_size, mesh):
        totals = evaluate(state.params, state.model_state, totals, batch)
        queue.add(totals.nll)
    return Epoch(*_means(state.totals), *_means(totals), progress.seconds, progress.waiting)
