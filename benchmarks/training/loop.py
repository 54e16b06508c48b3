"""The training loop: one for every model, dataset, optimizer and set of devices."""

import collections
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

import jax
from jax.sharding import AxisType, Mesh

from benchmarks.config.optimizers import OPTIMIZERS
from benchmarks.config.settings import Settings, SettingsError
from benchmarks.data.batches import Batch, evaluation_batches, training_batches
from benchmarks.data.registry import Dataset, kind
from benchmarks.models.registry import MODELS
from benchmarks.training.checkpoints import Checkpoints
from benchmarks.training.step import (
    Program,
    Totals,
    TrainState,
    arguments,
    compiled_evaluation,
    compiled_step,
    means,
    start,
    steps_per_epoch,
    zeros,
)

SECONDS_BETWEEN_LOOKS = 1.0


class Epoch(NamedTuple):
    """What is measured in each epoch."""

    train_nll: float  # mean over images, or tokens, as they were trained on: augmented, before their step.
    train_metric: float  # of the same, what the objective names: of classes the share of right answers.
    held_out_nll: float  # after the epoch, in float32, over the whole split.
    held_out_metric: float
    seconds: float  # evaluation excluded.
    waiting: float  # seconds of these that the loop waited for the next batch.

    def line(self, metric: str) -> dict[str, float]:
        """Returns the measurements as records call them."""
        return {name.replace("metric", metric): value for name, value in self._asdict().items()}


class Progress(NamedTuple):
    """How far the training is. With the seed it also tells the batches to come."""

    step: int
    seconds: float  # of the current epoch.
    waiting: float
    epochs: list[Epoch]


class Look(NamedTuple):
    """What a user sees while an epoch is under way."""

    step: int
    steps: int  # of the whole run.
    nll: float  # mean over the epoch so far.
    metric: float


def all_devices() -> Mesh:
    """Returns a mesh over which batches are split: every device of every process."""
    return jax.make_mesh((jax.device_count(),), ("batch",), axis_types=(AxisType.Auto,))


def first_device() -> Mesh:
    """Returns a mesh of one device, for networks that are too small for more."""
    return jax.make_mesh((1,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:1])


def train(
    settings: Settings,
    dataset: Dataset,
    *,
    mesh: Mesh | None = None,
    checkpoints: Checkpoints | None = None,
    watch: Callable[[Look], None] | None = None,
    inspect: Callable[[int, Program, TrainState], None] | None = None,
) -> Generator[Epoch, None, TrainState]:
    """Trains a new model on the training split; yields the measurements of each epoch.

    Runs that differ in the seed only share their compiled step. Batches are split over the
    first axis of `mesh`, which may span processes (default: all devices). With `checkpoints`
    a run that was cut off continues, and yields the epochs before that once more. `watch` is
    called about once a second, `inspect` with the number of steps done before the first and after
    each epoch; it must not keep the state, which is updated in place. Returns the trained state.
    """
    mesh = all_devices() if mesh is None else mesh
    per_epoch = steps_per_epoch(settings, dataset)
    check(settings, dataset, mesh)
    program, state = start(settings, dataset, mesh)
    step, values = compiled_step(program), arguments(settings)
    progress = Progress(0, 0.0, 0.0, [])
    if checkpoints is not None:
        state, found = checkpoints.open(state, _plain(progress))
        progress = _from_plain(found)
    yield from progress.epochs
    if inspect is not None and progress.step == 0:
        inspect(0, program, state)
    total = settings.epochs * per_epoch
    batches = training_batches(
        dataset.train, settings.batch_size, mesh, seed=settings.seed, start=progress.step, stop=total
    )
    for epoch in range(len(progress.epochs), settings.epochs):
        clock, queue = _Clock(progress), _Queue(mesh)
        while progress.step < (epoch + 1) * per_epoch:
            state, nll = step(state, clock.next(batches), values, settings.seed, progress.step)
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
        state = state._replace(totals=zeros(mesh))
        progress = Progress(progress.step, 0.0, 0.0, [*progress.epochs, measured])
        if inspect is not None:
            inspect(progress.step, program, state)
        yield measured
        if checkpoints is not None and checkpoints.due(epoch_ends=True):
            _save(checkpoints, state, progress)
    if checkpoints is not None:
        _save(checkpoints, state, progress)
    return state


def check(settings: Settings, dataset: Dataset, mesh: Mesh) -> None:
    """Refuses settings that cannot be run with this data on these devices."""
    devices, examples = mesh.shape[mesh.axis_names[0]], len(dataset.train)
    if settings.batch_size % devices:
        raise SettingsError(
            f"a batch of {settings.batch_size} cannot be divided over {devices} devices: "
            f"name a multiple of {devices}"
        )
    if settings.batch_size > examples:
        raise SettingsError(
            f"a batch of {settings.batch_size} is more than the {examples} training "
            f"{kind(settings.dataset)} of {settings.dataset}"
        )
    model = MODELS[settings.model]
    if model.takes != kind(settings.dataset):
        raise SettingsError(
            f"{settings.model} takes {model.takes}, and {settings.dataset} has {kind(settings.dataset)}: "
            "name another --model or another --dataset"
        )
    if model.smallest > min(dataset.shape[:2]):
        height, width, _ = dataset.shape
        raise SettingsError(
            f"{settings.model} needs images of {model.smallest} x {model.smallest} pixels or more; "
            f"those of {settings.dataset} have {height} x {width}"
        )
    steps, warmup = settings.epochs * steps_per_epoch(settings, dataset), settings.warmup_steps or 0
    if settings.schedule != "constant" and warmup >= steps:
        raise SettingsError(
            f"a warm-up of {warmup} steps leaves none of the {steps} of the run: "
            f"name fewer --warmup-steps or more --epochs"
        )


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
    return Look(step, steps, *means(totals))


def _save(checkpoints: Checkpoints, state: TrainState, progress: Progress) -> None:
    checkpoints.save(progress.step, state, _plain(progress))
    if checkpoints.stops():
        raise KeyboardInterrupt


def _plain(progress: Progress) -> dict[str, Any]:
    return {**progress._asdict(), "epochs": [epoch._asdict() for epoch in progress.epochs]}


def _from_plain(found: dict[str, Any]) -> Progress:
    return Progress(**{**found, "epochs": [Epoch(**epoch) for epoch in found["epochs"]]})


def _measure(
    program: Program, state: TrainState, progress: Progress, settings: Settings, dataset: Dataset, mesh: Mesh
) -> Epoch:
    evaluate, totals, queue = compiled_evaluation(program), zeros(mesh), _Queue(mesh)
    params = OPTIMIZERS[settings.optimizer].evaluated(state.opt_state, state.params)
    for batch in evaluation_batches(dataset.held_out, settings.batch_size, mesh):
        totals = evaluate(params, state.model_state, totals, batch)
        queue.add(totals.nll)
    return Epoch(*means(state.totals), *means(totals), progress.seconds, progress.waiting)
