"""What each job of the command line does."""

import argparse
import dataclasses
import datetime
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.markdown import Markdown

from benchmarks.config.optimizers import OPTIMIZERS
from benchmarks.config.selection import select
from benchmarks.config.settings import Settings, SettingsError, presets
from benchmarks.data import registry as datasets
from benchmarks.data.registry import DataError
from benchmarks.reporting import report, timing
from benchmarks.reporting import tuning as tune
from benchmarks.training.interruption import interruption
from benchmarks.training.loop import all_devices
from benchmarks.training.records import (
    PACKAGES,
    FolderError,
    ResultsFolder,
    Run,
    environment,
    measured_with,
    read,
)
from benchmarks.training.runner import open_datasets, sweep

COMPARED = ("sgdm", "adamw", "lion", "lpsgdm", "stacey_p2", "stacey_pp", "stacey_2p")
Options = argparse.Namespace
Show = Callable[[ResultsFolder, list[Run], Console], None]
SETTINGS = [field.name for field in dataclasses.fields(Settings)]


def compare(options: Options, console: Console) -> None:
    """Trains the small network with every optimizer, and reports."""
    runs = _select(options, "digits", "resnet8", range(options.seeds))
    _train(options, console, runs, _report)


def run_one(options: Options, console: Console) -> None:
    """Trains one run, and reports."""
    runs = _select(options, options.dataset, options.model, [options.seed])
    if len(runs) > 1:
        p = ", ".join(f"{run.p:g}" for run in runs)
        raise SettingsError(f"there are presets for several p: name --p, one of {p}")
    _train(options, console, runs, _report)


def run_sweep(options: Options, console: Console) -> None:
    """Trains every run asked for, and reports."""
    runs = _select(options, options.dataset, options.model, range(options.seeds))
    _train(options, console, runs, _report)


def run_tune(options: Options, console: Console) -> None:
    """Tries every setting, and shows the best of each optimizer."""
    rates, decays = (getattr(options, name) for name in tune.TUNED)
    for name in tune.TUNED:
        setattr(options, name, [0.0])  # a preset is not needed for what is tuned
    options.held_out = ["validation"]
    kinds = _select(options, options.dataset, options.model, range(options.seeds))
    budget = min(len(tune.trials(kind, rates, decays)) for kind in kinds)
    if options.trials is not None and options.trials > budget:
        raise SettingsError(
            f"--trials {options.trials} is more than the {budget} settings of the smallest grid"
        )
    count = options.trials or budget
    runs = [trial for kind in kinds for trial in tune.trials(kind, rates, decays, count)]
    _train(options, console, runs, _show_tuned)


def run_time(options: Options, console: Console) -> None:
    """Times every optimizer."""
    options.epochs, options.warmup_steps = [2], [0]
    folder = ResultsFolder(options.output) if options.output else None
    runs = open_datasets(_select(options, options.dataset, options.model, [0]), options.data_dir)
    text = timing.table(runs, all_devices())
    console.print(Markdown(text))
    if folder is not None:
        folder.write_text("timing.md", text)


def show_report(options: Options, console: Console) -> None:
    """Shows what is in a folder, and writes it beside or elsewhere."""
    if not options.folder.exists():
        raise FolderError(f"{options.folder} does not exist; name a folder with results")
    optimizers = options.optimizers or list(OPTIMIZERS)
    runs = [run for run in read(options.folder) if run.settings.optimizer in optimizers]
    if not runs:
        named = f" of {', '.join(options.optimizers)}" if options.optimizers else ""
        raise FolderError(f"{options.folder} has no results{named}")
    for epoch in options.at or []:
        if not any(epoch <= run.settings.epochs for run in runs):
            raise SettingsError(f"--at {epoch}: no run has as many epochs")
    beside = options.folder if options.folder.is_dir() else options.folder.parent
    _report(ResultsFolder(options.output or beside), runs, console, at=options.at)


def run_study(options: Options, console: Console) -> int:
    """Runs a study in a folder, and shows and writes what there is to read; returns the exit code."""
    study = importlib.import_module(f"benchmarks.studies.{options.name}")
    options.output = options.output or Path("runs") / f"{options.name}{'-quick' if options.quick else ''}"
    folder = ResultsFolder(options.output)
    try:
        text = study.run(options.quick, folder.path).strip()
    except OSError as error:  # of the folder it would be a FolderError.
        raise DataError(" ".join(str(error).split())) from error
    except KeyboardInterrupt:
        console.print("Interrupted." + (" To continue, repeat the command." if options.continues else ""))
        return 130
    cut = "\n\nMeasured with --quick, on a problem cut small." if options.quick else ""
    page = f"{text}{cut}\n\n{measured_with([environment()], PACKAGES)}\n"
    folder.write_text("table.md", page)
    console.print(Markdown(page))
    console.print(f"Results are in {folder.path}", soft_wrap=True)
    return 0


def prepare(options: Options, console: Console) -> None:
    """Makes a dataset ready."""
    folder = datasets.prepare(options.dataset, data_dir=options.data_dir, source=options.source)
    console.print(f"{options.dataset} is ready in {folder}", soft_wrap=True)


def _select(options: Options, dataset: str, model: str, seeds: Sequence[int]) -> list[Settings]:
    named = {name: value for name in SETTINGS if isinstance(value := getattr(options, name, None), list)}
    paper = getattr(options, "paper", None)
    optimizers = list(dict.fromkeys(options.optimizers or _with_presets(dataset, model, paper)))
    return select(dataset, model, optimizers, seeds, named, paper=paper)


def _with_presets(dataset: str, model: str, paper: str | None) -> list[str]:
    names = [name for name in OPTIMIZERS if presets(dataset, model, name, paper)]
    if not names:
        of_paper = "" if paper is None else f" of --paper {paper}"
        raise SettingsError(f"there is no preset{of_paper} for {model} on {dataset}: name --optimizers")
    return names


def _train(options: Options, console: Console, runs: list[Settings], show: Show) -> None:
    """Trains what is missing in the folder, then shows what is there, also if interrupted."""
    if options.output is None and jax.process_count() > 1:
        raise SettingsError("several processes need one folder: name it with --output")
    with_data = open_datasets(runs, getattr(options, "data_dir", None))
    options.output = options.output or _new_folder(options.name)
    folder = ResultsFolder(options.output)
    console.print(f"Results go to {options.output}", soft_wrap=True)
    try:
        with interruption(console) as interrupted:
            sweep(with_data, folder, console, interrupted)
    except KeyboardInterrupt:
        _show(folder, console, show)
        raise
    _show(folder, console, show)


def _show(folder: ResultsFolder, console: Console, show: Show) -> None:
    if jax.process_index() == 0:
        show(folder, read(folder.path), console)


def _new_folder(job: str) -> Path:
    return Path("runs") / f"{job}-{datetime.datetime.now():%Y%m%d-%H%M%S}"


def _report(folder: ResultsFolder, runs: list[Run], console: Console, at: Any = None) -> None:
    names = report.write(folder, runs, at)
    report.show(runs, console, at)
    console.print(f"Results are in {folder.path}: {', '.join(names)}", soft_wrap=True)


def _show_tuned(folder: ResultsFolder, runs: list[Run], console: Console) -> None:
    runs = [run for run in runs if run.settings.held_out == "validation"]
    finished = [run for run in runs if run.finished]
    text = tune.table(finished) if finished else "No setting has been tried.\n"
    if missing := len(runs) - len(finished):
        text += f"\nNot finished: {missing} of the runs that have begun.\n"
    console.print(Markdown(text))
    folder.write_text("table.md", text)
    console.print(f"Results are in {folder.path}: table.md", soft_wrap=True)
