"""The jobs of the command line: each is a dataclass of its options, with comments that tyro shows."""

import datetime
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import jax
from rich.console import Console
from rich.markdown import Markdown
from tyro.conf import FlagCreatePairsOff, Positional, arg

from benchmarks import options
from benchmarks.config.optimizers import OPTIMIZERS
from benchmarks.config.selection import Overrides, select
from benchmarks.config.settings import FROM_0, FROM_1, Settings, SettingsError
from benchmarks.data import registry as datasets
from benchmarks.reporting import report, timing
from benchmarks.reporting import tuning as tune
from benchmarks.training import loop, records, runner
from benchmarks.training.interruption import interruption
from benchmarks.training.records import FolderError, ResultsFolder, Run, read

COMPARED = ("sgdm", "adamw", "lion", "lpsgdm", "stacey_p2", "stacey_pp", "stacey_2p")
Show = Callable[[ResultsFolder, list[Run], Console], None]


@dataclass
class Training:
    """A job that trains, and shows what there is then."""

    data_dir: options.Folder = None  # where TensorFlow Datasets are kept (default: ~/tensorflow_datasets)
    # folder for the results; one that holds some is continued (default: runs/JOB-DATE-TIME)
    output: options.Folder = None
    # train in several processes together, each started with this command: on a cluster that JAX knows
    # without more, elsewhere with ADDRESS:PORT of the first process, their number, and the number of
    # this one, from 0; --output must be a folder that all see
    distributed: Annotated[list[str] | None, arg(metavar="[X ...]", help_behavior_hint="")] = None

    def train(self, console: Console, runs: list[Settings], show: Show) -> None:
        """Trains what is missing in the folder, then shows what is there, also if interrupted."""
        if self.output is None and jax.process_count() > 1:
            raise SettingsError("several processes need one folder: name it with --output")
        with_data = runner.open_datasets(runs, self.data_dir)
        job = type(self).__name__.lower()
        self.output = self.output or Path("runs") / f"{job}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
        folder = ResultsFolder(self.output)
        console.print(f"Results go to {self.output}", soft_wrap=True)
        try:
            with interruption(console) as interrupted:
                runner.sweep(with_data, folder, console, interrupted)
        except KeyboardInterrupt:
            _show(folder, console, show)
            raise
        _show(folder, console, show)


@dataclass
class Compare(Training):
    """Take a first look: a ResNet-8 on scikit-learn's digits with seven optimizers, each as tuned."""

    # which of them to compare
    optimizers: Annotated[tuple[str, ...], options.one_of(COMPARED), arg(aliases=["--optimizer"])] = COMPARED
    seeds: Annotated[int, FROM_1] = 3  # how many runs of each, from different initial parameters
    epochs: options.Number = None  # passes over the data (default: 20)

    def run(self, console: Console) -> None:
        """Trains the small network with every optimizer, and reports."""
        epochs = {} if self.epochs is None else {"epochs": [self.epochs]}
        self.train(console, select("digits", "resnet8", self.optimizers, range(self.seeds), epochs), _report)


@dataclass
class Workload:
    """What is trained on what, with which optimizers and whose settings."""

    # Settings that replace those of the preset.
    settings: Annotated[Overrides, options.overrides()]
    dataset: options.Dataset = "digits"
    model: options.Model = "resnet8"
    # whose settings to take: lpsgdm, stacey or lpoptax (default: the first that has some)
    paper: Annotated[str | None, options.PAPER, arg(metavar="NAME", help_behavior_hint="")] = None
    optimizers: options.Optimizers = None

    def select(self, seeds: Sequence[int], **more: Sequence[Any]) -> list[Settings]:
        """Returns the runs that are asked for, with more settings named."""
        overrides = {**self.settings, **more}
        return select(self.dataset, self.model, self.optimizers, seeds, overrides, paper=self.paper)


@dataclass
class Images(Training, Workload):
    """Train one model on one dataset with one optimizer, as a paper did or with what is named."""

    settings: Annotated[Overrides, options.overrides(several=False)]
    optimizers: options.Optimizer = ("lpsgdm",)
    seed: Annotated[int, FROM_0] = 0  # of the initial parameters, the order of the data, its augmentation

    def run(self, console: Console) -> None:
        """Trains one run, and reports."""
        runs = self.select([self.seed])
        if len(runs) > 1:
            p = ", ".join(f"{run.p:g}" for run in runs)
            raise SettingsError(f"there are presets for several p: name --p, one of {p}")
        self.train(console, runs, _report)


@dataclass
class Text(Images):
    """Do the same with a language model."""

    dataset: options.Dataset = "stdlib"
    model: options.Model = "llama_small"


@dataclass
class Sweep(Training, Workload):
    """Train every optimizer with every combination of the values named and several seeds, and report.

    What is finished in the folder is not run again; several jobs may share the work.
    """

    seeds: Annotated[int, FROM_1] = 5  # how many runs of each setting, from different initial parameters

    def run(self, console: Console) -> None:
        """Trains every run asked for, and reports."""
        self.train(console, self.select(range(self.seeds)), _report)


@dataclass
class Tune(Training, Workload):
    """Choose learning rate and weight decay on validation data, with as many trials for each optimizer.

    They are those that the LPSGDM paper tried, or those named. The test data take no part.
    """

    settings: Annotated[Overrides, options.overrides("held_out")]
    seeds: Annotated[int, FROM_1] = 1  # how many runs of each setting, from different initial parameters
    trials: options.Number = None  # how many settings to draw from the grid, the same for each (default: all)

    def run(self, console: Console) -> None:
        """Tries every setting, and shows the best of each optimizer."""
        rates, decays = map(self.settings.get, tune.TUNED)
        # A preset is not needed for what is tuned.
        kinds = self.select(range(self.seeds), **dict.fromkeys(tune.TUNED, (0.0,)), held_out=["validation"])
        budget = min(len(tune.trials(kind, rates, decays)) for kind in kinds)
        count = self.trials or budget
        if count > budget:
            raise SettingsError(f"--trials {count} is more than the {budget} settings of the smallest grid")
        runs = [trial for kind in kinds for trial in tune.trials(kind, rates, decays, count)]
        self.train(console, runs, _show_tuned)


@dataclass
class Time(Workload):
    """Train two epochs with each optimizer, and show how fast the second was and what took the time."""

    settings: Annotated[Overrides, options.overrides("epochs", "warmup_steps", "held_out")]
    data_dir: options.Folder = None  # where TensorFlow Datasets are kept (default: ~/tensorflow_datasets)
    output: options.Folder = None  # folder to write the table to, too

    def run(self, console: Console) -> None:
        """Times every optimizer."""
        folder = ResultsFolder(self.output) if self.output else None
        runs = runner.open_datasets(self.select([0], epochs=[2], warmup_steps=[0]), self.data_dir)
        text = timing.table(runs, loop.all_devices())
        console.print(Markdown(text))
        if folder is not None:
            folder.write_text("timing.md", text)


@dataclass
class Report:
    """Print and write the table and the curves of finished runs, beside what was published of them."""

    folder: Positional[Path]  # a folder with results, or a file of them
    # epochs to tabulate (default: the last)
    at: Annotated[tuple[int, ...] | None, FROM_1, arg(metavar="EPOCH ...", help_behavior_hint="")] = None
    optimizers: options.Optimizers = None
    output: options.Folder = None  # folder for the table and the curves (default: that of the results)

    def run(self, console: Console) -> None:
        """Shows what is in a folder, and writes it beside or elsewhere."""
        if not self.folder.exists():
            raise FolderError(f"{self.folder} does not exist; name a folder with results")
        optimizers = self.optimizers or tuple(OPTIMIZERS)
        runs = [run for run in read(self.folder) if run.settings.optimizer in optimizers]
        if not runs:
            named = f" of {', '.join(self.optimizers)}" if self.optimizers else ""
            raise FolderError(f"{self.folder} has no results{named}")
        for epoch in self.at or ():
            if not any(epoch <= run.settings.epochs for run in runs):
                raise SettingsError(f"--at {epoch}: no run has as many epochs")
        beside = self.folder if self.folder.is_dir() else self.folder.parent
        _report(ResultsFolder(self.output or beside), runs, console, list(self.at) if self.at else None)


@dataclass
class Prepare:
    """Make a dataset ready with TensorFlow Datasets, once: downloaded, or from the files as published."""

    dataset: Annotated[Positional[str], arg(metavar="NAME", help=options.DATASET.text)]
    source: options.Folder = None  # folder with the files as they are published
    data_dir: options.Folder = None  # where TensorFlow Datasets are kept (default: ~/tensorflow_datasets)

    def run(self, console: Console) -> None:
        """Makes a dataset ready."""
        folder = datasets.prepare(self.dataset, data_dir=self.data_dir, source=self.source)
        console.print(f"{self.dataset} is ready in {folder}", soft_wrap=True)


@dataclass
class Study:
    """A study, which a subclass names.

    Attributes:
        quick: take seconds: a check that it runs, on a problem cut small
        output: folder for the results (default: runs/STUDY, or runs/STUDY-quick)
    """

    name: ClassVar[str]  # of the module in benchmarks.studies.
    continues: ClassVar[bool]  # it measures only what its folder lacks.
    quick: FlagCreatePairsOff[bool] = False
    output: options.Folder = None

    def run(self, console: Console) -> int:
        """Runs the study, and shows and writes what there is to read; returns the exit code."""
        study = importlib.import_module(f"benchmarks.studies.{self.name}")
        folder = ResultsFolder(self.output or Path("runs") / f"{self.name}{'-quick' if self.quick else ''}")
        try:
            text = study.run(self.quick, folder.path).strip()
        except OSError as error:  # of the folder it would be a FolderError.
            raise datasets.DataError(" ".join(str(error).split())) from error
        except KeyboardInterrupt:
            console.print("Interrupted." + (" To continue, repeat the command." if self.continues else ""))
            return 130
        cut = "\n\nMeasured with --quick, on a problem cut small." if self.quick else ""
        page = f"{text}{cut}\n\n{records.measured_with([records.environment()], records.PACKAGES)}\n"
        folder.write_text("table.md", page)
        console.print(Markdown(page))
        console.print(f"Results are in {folder.path}", soft_wrap=True)
        return 0


def _show(folder: ResultsFolder, console: Console, show: Show) -> None:
    if jax.process_index() == 0:
        show(folder, read(folder.path), console)


def _report(folder: ResultsFolder, runs: list[Run], console: Console, at: list[int] | None = None) -> None:
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
