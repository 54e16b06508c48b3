"""Trains every run that a folder lacks, one after the other."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from rich.console import Console

from benchmarks.config.optimizers import schedules
from benchmarks.config.settings import Settings
from benchmarks.data.registry import Dataset, load
from benchmarks.training.checkpoints import Checkpoints
from benchmarks.training.interruption import interruption
from benchmarks.training.loop import all_devices, check, first_device, train
from benchmarks.training.progress import Display, changing_at
from benchmarks.training.records import ResultsFolder, Run, name, read
from benchmarks.training.step import steps_per_epoch

Interrupted = Callable[[], bool]


def open_datasets(
    runs: list[Settings], data_dir: Path | None = None, mesh: Mesh | None = None
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


def sweep(
    runs: dict[Settings, Dataset],
    folder: ResultsFolder,
    console: Console,
    interrupted: Interrupted,
    mesh: Mesh | None = None,
) -> None:
    """Trains the runs that are neither finished nor under way in another job, on all devices by default."""
    mesh = mesh or all_devices()
    found = folder.find({settings: _examples(dataset) for settings, dataset in runs.items()})
    missing = [settings for settings in runs if settings not in found or not found[settings].finished]
    with Display(console, missing) as display:
        for settings in runs:
            if interrupted() and jax.process_count() == 1:
                raise KeyboardInterrupt
            known = found.get(settings)
            with _begin(settings, runs[settings], known, folder, display) as record:
                if record is not None:
                    _run(record, runs[settings], mesh, folder, display, interrupted)
            if settings in missing:
                display.finish(settings)


def complete(runs: list[Settings], folder: ResultsFolder) -> list[Run]:
    """Trains the runs that the folder lacks, on one device as they are small, and returns all of them."""
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    mesh = first_device()
    while missing := [run for run in runs if run not in _finished(folder)]:
        with_data = open_datasets(missing, mesh=mesh)
        with interruption(console) as interrupted:
            sweep(with_data, folder, console, interrupted, mesh)
        for run in missing:
            with folder.lock(name(run), wait=True):
                pass  # another job is done with it.
    found = {run.settings: run for run in read(folder.path)}
    return [found[run] for run in runs]


def _finished(folder: ResultsFolder) -> set[Settings]:
    return {run.settings for run in read(folder.path) if run.finished}


def _examples(dataset: Dataset) -> dict[str, int]:
    return {"train": len(dataset.train), "held_out": len(dataset.held_out)}


@contextlib.contextmanager
def _begin(
    settings: Settings, dataset: Dataset, known: Run | None, folder: ResultsFolder, display: Display
) -> Iterator[Run | None]:
    """Gives the record of a run that this job is to do, and None for one that it is not.

    Where several processes train together the first one decides, and keeps the records.
    """
    with contextlib.ExitStack() as stack:
        record: Run | None = Run(settings, {}, _examples(dataset), [])
        if jax.process_index() == 0:
            record = _claimed(settings, dataset, known, folder, display, stack)
        if jax.process_count() > 1 and not multihost_utils.broadcast_one_to_all(np.array(record is not None)):
            record = None
        yield record


def _claimed(
    settings: Settings,
    dataset: Dataset,
    known: Run | None,
    folder: ResultsFolder,
    display: Display,
    stack: contextlib.ExitStack,
) -> Run | None:
    """Returns the record of a run that waits to be done, which no other job can begin now."""
    if not stack.enter_context(folder.claim(settings)):
        display.say(f"{display.name(settings)}, is under way in another job")
        return None
    record = folder.begin(settings, _examples(dataset), known)
    if record.finished:
        # Of an interruption after the last epoch.
        Checkpoints(_checkpoints(settings, folder), {}).remove()
        return None
    return record


def _checkpoints(settings: Settings, folder: ResultsFolder) -> Path:
    return folder.path / "checkpoints" / name(settings)


def _run(
    record: Run,
    dataset: Dataset,
    mesh: Mesh,
    folder: ResultsFolder,
    display: Display,
    interrupted: Interrupted,
) -> None:
    settings = record.settings
    per_epoch = steps_per_epoch(settings, dataset)
    changing = schedules(settings, per_epoch)
    checkpoints = Checkpoints(
        _checkpoints(settings, folder),
        settings.plain(),
        interrupted=interrupted,
        say=display.say,
    )
    display.start(settings, changing, per_epoch)
    epochs = train(settings, dataset, mesh=mesh, checkpoints=checkpoints, watch=display.look)
    for number, epoch in enumerate(epochs, 1):
        if jax.process_index() == 0:
            line = {"epoch": number, **changing_at(changing, number * per_epoch - 1), **epoch._asdict()}
            record = folder.add(record, line)
        display.epoch(number, epoch)
    checkpoints.remove()
