"""Trains every run that a folder lacks, one after the other."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from rich.console import Console

from benchmarks.config.schedules import schedules
from benchmarks.config.settings import Settings
from benchmarks.data.registry import Dataset, load
from benchmarks.training.checkpoints import Checkpoints
from benchmarks.training.interruption import interruption
from benchmarks.training.loop import all_devices, check, first_device, train
from benchmarks.training.progress import Display, changing_at
from benchmarks.training.records import ResultsFolder, Run, name, read
from benchmarks.training.step import Program, TrainState, steps_per_epoch

# Measures more than losses, at some epochs: from a run, its data, the number of the epoch (0 before the
# first step) and the state.
Measure = Callable[[Settings, Dataset, int, Program, TrainState], dict[str, Any]]


class Job(NamedTuple):
    """What the runs of a job share."""

    folder: ResultsFolder
    display: Display
    interrupted: Callable[[], bool]
    mesh: Mesh
    measure: Measure | None


def open_datasets(
    runs: Sequence[Settings], data_dir: Path | None = None, mesh: Mesh | None = None
) -> dict[Settings, Dataset]:
    """Returns the data of each run; says what is wrong with one of them before the first is trained."""
    opened: dict[tuple[str, str], Dataset] = {}
    mesh = mesh or all_devices()
    for run in runs:
        if (run.dataset, run.held_out) not in opened:
            dataset = load(run.dataset, held_out=run.held_out, data_dir=data_dir)
            opened[run.dataset, run.held_out] = dataset
        check(run, opened[run.dataset, run.held_out], mesh)
    return {run: opened[run.dataset, run.held_out] for run in runs}


def complete(runs: Sequence[Settings], folder: ResultsFolder, measure: Measure | None = None) -> list[Run]:
    """Trains the runs that the folder lacks, on one device as they are small, and returns all of them."""
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    found = _finished(folder)
    while missing := [run for run in runs if run not in found]:
        with_data = open_datasets(missing, mesh=first_device())
        with interruption(console) as interrupted:
            sweep(with_data, folder, console, interrupted, mesh=first_device(), measure=measure)
        for run in missing:
            with folder.lock(name(run), wait=True):
                pass  # another job is done with it.
        found = _finished(folder)
    return [found[run] for run in runs]


def _finished(folder: ResultsFolder) -> dict[Settings, Run]:
    return {run.settings: run for run in read(folder.path) if run.finished}


def sweep(
    runs: dict[Settings, Dataset],
    folder: ResultsFolder,
    console: Console,
    interrupted: Callable[[], bool],
    *,
    mesh: Mesh | None = None,
    measure: Measure | None = None,
) -> None:
    """Trains the runs that are neither finished nor under way in another job, on all devices by default."""
    found = folder.find({settings: _examples(dataset) for settings, dataset in runs.items()})
    missing = [settings for settings in runs if settings not in found or not found[settings].finished]
    with Display(console, missing) as display:
        job = Job(folder, display, interrupted, mesh or all_devices(), measure)
        for settings in missing:
            if interrupted() and jax.process_count() == 1:
                raise KeyboardInterrupt
            with _begin(job, settings, runs[settings], found.get(settings)) as record:
                if record is not None:
                    _run(job, record, runs[settings])
            display.finish(settings)


def _examples(dataset: Dataset) -> dict[str, int]:
    return {"train": len(dataset.train), "held_out": len(dataset.held_out)}


@contextlib.contextmanager
def _begin(job: Job, settings: Settings, dataset: Dataset, known: Run | None) -> Iterator[Run | None]:
    """Gives the record of a run that this job is to do, and None for one that it is not.

    Where several processes train together the first one decides, and keeps the records.
    """
    with contextlib.ExitStack() as stack:
        record: Run | None = Run(settings, {}, _examples(dataset), [])
        if jax.process_index() == 0:
            ours = stack.enter_context(job.folder.lock(name(settings)))
            record = _claimed(job, settings, dataset, known) if ours else None
            if not ours:
                job.display.say(f"{job.display.name(settings)}, is under way in another job")
        if jax.process_count() > 1 and not multihost_utils.broadcast_one_to_all(np.array(record is not None)):
            record = None
        yield record


def _claimed(job: Job, settings: Settings, dataset: Dataset, known: Run | None) -> Run | None:
    """Returns the record of a run that no other job can begin now, unless one has finished it since."""
    record = job.folder.begin(settings, _examples(dataset), known)
    if record.finished:
        # Of an interruption after the last epoch.
        Checkpoints(_checkpoints(job, settings), {}).remove()
        return None
    return record


def _checkpoints(job: Job, settings: Settings) -> Path:
    return job.folder.path / "checkpoints" / name(settings)


def _run(job: Job, record: Run, dataset: Dataset) -> None:
    settings = record.settings
    per_epoch = steps_per_epoch(settings, dataset)
    changing = schedules(settings, per_epoch)
    checkpoints = Checkpoints(
        _checkpoints(job, settings),
        settings.plain(),
        interrupted=job.interrupted,
        say=job.display.say,
    )
    metric = dataset.objective.metric
    measured: dict[str, Any] = {}

    def inspect(step: int, program: Program, state: TrainState) -> None:
        nonlocal record, measured
        if job.measure is not None:
            measured = job.measure(settings, dataset, step // per_epoch, program, state)
            if step == 0 and measured:
                record = job.folder.add(record, {"epoch": 0, **measured})

    job.display.begin(settings, changing, per_epoch)
    watch = job.display.look
    epochs = train(settings, dataset, mesh=job.mesh, checkpoints=checkpoints, watch=watch, inspect=inspect)
    for number, epoch in enumerate(epochs, 1):
        if jax.process_index() == 0:
            line = {"epoch": number, **changing_at(changing, number * per_epoch - 1), **epoch.line(metric)}
            record = job.folder.add(record, {**line, **measured})
        job.display.epoch(number, epoch)
    checkpoints.remove()
