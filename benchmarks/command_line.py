"""Options, and errors of one line."""

import argparse
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jax
from rich.console import Console

from benchmarks import datasets, jobs
from benchmarks.datasets import DataError
from benchmarks.models import MODELS
from benchmarks.optimizers import OPTIMIZERS
from benchmarks.recording import FolderError
from benchmarks.selection import option
from benchmarks.settings import CHOICES, PAPERS, SettingsError

LARGEST = 100_000_000
Add = Callable[..., Any]


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the job that the command line names; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    quiet = False
    if getattr(options, "distributed", None) is not None:
        _join(options.distributed, parser)
        quiet = jax.process_index() > 0  # one speaks for all.
    console = Console(markup=False, emoji=False, highlight=False, quiet=quiet)  # a path may hold anything
    # Orbax logs what it raises, too.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    try:
        options.run(options, console)
    except (FolderError, DataError, SettingsError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    except KeyboardInterrupt:
        if getattr(options, "output", None):
            again = f"Interrupted. To continue, repeat the command with --output {options.output}"
            console.print(again, soft_wrap=True)
        return 130
    return 0


def _join(place: list[str], parser: _Parser) -> None:
    """Connects the processes."""
    text = " ".join(place)
    if not re.fullmatch(r"(\S+:\d+ \d+ \d+)?", text):
        parser.error(f"argument --distributed: must be nothing or ADDRESS:PORT COUNT RANK, got {text!r}")
    address, count, rank = (place[0], int(place[1]), int(place[2])) if place else (None, None, None)
    try:
        jax.distributed.initialize(address, count, rank)
    except (RuntimeError, ValueError) as error:
        parser.error(f"argument --distributed: {' '.join(str(error).split())}")


def _parser() -> _Parser:
    parser = _Parser(
        prog="python -m benchmarks",
        description="Train networks with lpoptax's optimizers and Optax's, and compare them.",
        epilog="Start with: python -m benchmarks compare (about two minutes on two CPU cores)",
    )
    add = parser.add_subparsers(required=True, metavar="JOB").add_parser
    _add_compare(add)
    _add_images(add)
    _add_sweep(add)
    _add_tune(add)
    _add_time(add)
    _add_report(add)
    _add_prepare(add)
    return parser


def _job(add: Add, name: str, run: Callable[..., None], summary: str, description: str) -> _Parser:
    job: _Parser = add(name, help=summary, description=description)
    job.set_defaults(run=run, name=name)
    return job


def _add_compare(add: Add) -> None:
    job = _job(
        add,
        "compare",
        jobs.compare,
        "a first look: seven optimizers on handwritten digits",
        "Train a ResNet-8 on scikit-learn's handwritten digits with every optimizer, each at its tuned "
        "settings, with several seeds. Ends with a table and writes it, the learning curves and "
        "machine-readable results to a folder.",
    )
    _add_optimizers(job, jobs.COMPARED, several=True)
    _add_counts(job, 3)
    job.add_argument(
        "--epochs", type=_whole_number, nargs=1, metavar="N", help="passes over the data (default: 20)"
    )
    _add_data_dir(job)
    _add_output(job)


def _add_images(add: Add) -> None:
    job = _job(
        add,
        "images",
        jobs.images,
        "one run: a model, a dataset, an optimizer",
        "Train one model on one dataset with one optimizer. The settings are those of the paper that has "
        "this combination, if one has; any of them may be named instead. Repeated with the same --output, "
        "a run that was cut off continues.",
    )
    _add_workload(job)
    _add_optimizers(job, ["lpsgdm"], several=False)
    _add_settings(job, several=False)
    job.add_argument(
        "--seed",
        type=_count,
        default=0,
        metavar="N",
        help="of the initial parameters, the order of the images and their augmentation (default: 0)",
    )
    _add_running(job)


def _add_sweep(add: Add) -> None:
    job = _job(
        add,
        "sweep",
        jobs.run_sweep,
        "several optimizers, seeds and values of any setting",
        "Train every optimizer with every combination of the values named, with several seeds, and "
        "report. What is finished in the folder is not run again; several jobs may share the work, "
        "each taking runs that no other is about.",
    )
    _add_workload(job)
    _add_optimizers(job, None, several=True)
    _add_settings(job, several=True)
    _add_counts(job, 5)
    _add_running(job)


def _add_tune(add: Add) -> None:
    job = _job(
        add,
        "tune",
        jobs.run_tune,
        "choose learning rate and weight decay on validation images",
        "Try the same number of learning rates and weight decays with every optimizer, out of the grids "
        "of the LPSGDM paper or the values named, and show the best of each. A part of the training "
        "images is held out for that; the test images take no part.",
    )
    _add_workload(job)
    _add_optimizers(job, None, several=True)
    _add_settings(job, several=True, but=["held_out"])
    _add_counts(job, 1)
    job.add_argument(
        "--trials",
        type=_whole_number,
        metavar="N",
        help="how many settings to draw from the grid, the same for each (default: all)",
    )
    _add_running(job)


def _add_time(add: Add) -> None:
    job = _job(
        add,
        "time",
        jobs.run_time,
        "images per second, and what the time goes into",
        "Train two epochs with each optimizer and show the speed of the second, the share of it spent "
        "waiting for data, and the share of a step spent in the optimizer.",
    )
    _add_workload(job)
    _add_optimizers(job, None, several=True)
    _add_settings(job, several=True, but=["epochs", "warmup_steps", "held_out"])
    _add_data_dir(job)
    _add_output(job, "folder to write the table to, too")


def _add_report(add: Add) -> None:
    job = _job(
        add,
        "report",
        jobs.show_report,
        "the tables and curves of finished runs",
        "Print the table of the runs in a folder, with the figures that the papers published beside them "
        "where there are some, and write it as Markdown and CSV, and the curves as PNG and SVG.",
    )
    job.add_argument("folder", type=Path, metavar="DIR", help="a folder with results, or a file of them")
    job.add_argument(
        "--at", type=_whole_number, nargs="+", metavar="EPOCH", help="epochs to tabulate (default: the last)"
    )
    _add_optimizers(job, None, several=True)
    _add_output(job, "folder for the table and the curves (default: DIR)")


def _add_prepare(add: Add) -> None:
    job = _job(
        add,
        "prepare",
        jobs.prepare,
        "get a dataset",
        "Make a dataset ready with TensorFlow Datasets, once. CIFAR is downloaded, Fashion-MNIST comes "
        "from the Debian package dataset-fashion-mnist, ImageNet from its two tar files.",
    )
    job.add_argument(
        "dataset", choices=datasets.NAMES, metavar="NAME", help=f"one of {', '.join(datasets.NAMES)}"
    )
    job.add_argument(
        "--source", type=_folder, metavar="DIR", help="folder with the files as they are published"
    )
    _add_data_dir(job)


def _add_workload(job: _Parser) -> None:
    job.add_argument(
        "--dataset",
        choices=datasets.NAMES,
        default="digits",
        metavar="NAME",
        help=f"one of {', '.join(datasets.NAMES)} (default: digits)",
    )
    job.add_argument(
        "--model",
        choices=list(MODELS),
        default="resnet8",
        metavar="NAME",
        help=f"one of {', '.join(MODELS)} (default: resnet8)",
    )
    job.add_argument(
        "--paper",
        choices=PAPERS,
        metavar="NAME",
        help=f"whose settings to take, of {', '.join(PAPERS)} (default: the first that has some)",
    )


def _add_optimizers(job: _Parser, default: Sequence[str] | None, *, several: bool) -> None:
    shown = "those that have a preset" if default is None else " ".join(default)
    job.add_argument(
        "--optimizers" if several else "--optimizer",
        dest="optimizers",
        nargs="+" if several else 1,
        choices=list(OPTIMIZERS),
        default=default and list(default),
        metavar="NAME",
        help=f"of {', '.join(OPTIMIZERS)} (default: {shown})",
    )


def _add_settings(job: _Parser, *, several: bool, but: Sequence[str] = ()) -> None:
    values = ", each with one value or more" if several else ""
    group = job.add_argument_group(f"settings that replace those of the preset{values}")
    for name, (kind, text) in SETTINGS.items():
        if name not in but:
            choices = CHOICES.get(name)
            more = f": {' or '.join(choices)}" if choices else ""
            group.add_argument(
                f"--{option(name)}",
                type=kind,
                choices=choices,
                nargs="+" if several else 1,
                metavar="X",
                help=text + more,
            )


def _add_counts(job: _Parser, default: int) -> None:
    job.add_argument(
        "--seeds",
        type=_whole_number,
        default=default,
        metavar="N",
        help=f"how many runs of each setting, from different initial parameters (default: {default})",
    )


def _add_running(job: _Parser) -> None:
    _add_data_dir(job)
    _add_output(job)
    job.add_argument(
        "--distributed",
        nargs="*",
        metavar="X",
        help="train in several processes together, each started with this command: on a cluster that JAX "
        "knows without more, elsewhere with ADDRESS:PORT of the first process, their number, and the "
        "number of this one, from 0; --output must be a folder that all see",
    )


def _add_data_dir(job: _Parser) -> None:
    job.add_argument(
        "--data-dir",
        type=_folder,
        metavar="DIR",
        help="where TensorFlow Datasets keeps its data (default: its own, ~/tensorflow_datasets)",
    )


def _add_output(job: _Parser, text: str | None = None) -> None:
    text = text or "folder for the results; one that holds some is continued (default: runs/JOB-DATE-TIME)"
    job.add_argument("--output", type=_folder, metavar="DIR", help=text)


def _whole_number(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= LARGEST):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {LARGEST}, got {text!r}")
    return int(text)


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) <= LARGEST):
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {LARGEST}, got {text!r}")
    return int(text)


def _number(allowed: Callable[[float], bool], text: str) -> Callable[[str], float]:
    """Returns a function that reads a number, and refuses one that is not as `text` tells."""

    def read(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not allowed(number):
            raise argparse.ArgumentTypeError(f"must be a number {text}, got {value!r}")
        return number

    return read


def _folder(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("must name a folder, got nothing")
    return Path(text)


_positive = _number(lambda x: 0 < x < float("inf"), "above 0")
_not_negative = _number(lambda x: 0 <= x < float("inf"), "from 0")
_rate = _number(lambda x: 0 <= x < 1, "from 0 to below 1")

SETTINGS: dict[str, tuple[Callable[[str], Any], str]] = {
    "batch_size": (_whole_number, "images in a batch, over all devices"),
    "epochs": (_whole_number, "passes over the training images"),
    "learning_rate": (_positive, "the peak"),
    "weight_decay": (_not_negative, "added to the gradient for SGD and Adam, decoupled for the others"),
    "p": (_number(lambda x: x > 1, "above 1"), "the norm; LPSGD and LPSGDM lower it to 2"),
    "anneal": (str, "when LPSGD and LPSGDM change p"),
    "b1": (_rate, "decay rate of the momentum"),
    "b2": (_rate, "decay rate of the second moment, or of the momentum that is kept"),
    "eps": (_not_negative, "added to avoid a division by 0"),
    "alpha": (_positive, "step of STACEY's mirror descent"),
    "tau": (_number(lambda x: 0 <= x <= 1, "from 0 to 1"), "STACEY's coupling"),
    "schedule": (str, "of the learning rate"),
    "warmup_steps": (_count, "steps in which the learning rate rises (default: a twentieth of all)"),
    "decay": (str, "what the weight decay acts on"),
    "dtype": (str, "what the model computes in"),
    "held_out": (str, "images to evaluate on; those for validation are left out of the training"),
}
