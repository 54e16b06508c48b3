"""Options, and errors of one line."""

import argparse
import datetime
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from benchmarks.compare import EPOCHS, compare
from benchmarks.optimizers import OPTIMIZERS
from benchmarks.recording import FolderError
from benchmarks.tune import tune

LARGEST = 100_000
JOBS = {"compare": (compare, 3), "tune": (tune, 2)}


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the job that the command line names; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    job, _ = JOBS[options.job]
    output = options.output or Path("runs") / f"{options.job}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    console = Console(markup=False, emoji=False)  # a path may hold anything
    # Orbax logs what it raises, too.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    try:
        job(list(dict.fromkeys(options.optimizers)), options.seeds, options.epochs, output, console)
    except FolderError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    except KeyboardInterrupt:
        again = f"Interrupted. To continue, repeat the command with --output {output}"
        console.print(again, soft_wrap=True)
        return 130
    return 0


def _parser() -> _Parser:
    parser = _Parser(
        prog="python -m benchmarks",
        description="Train a small network with several optimizers, lpoptax's and Optax's, and compare them.",
        epilog="Start with: python -m benchmarks compare (about two minutes on two CPU cores)",
    )
    jobs = parser.add_subparsers(dest="job", required=True, metavar="JOB")
    _add_job(
        jobs,
        "compare",
        "train with every optimizer and show a table and a picture",
        "Train a ResNet-8 on scikit-learn's handwritten digits with every optimizer, each at its tuned "
        "settings, with several seeds. Ends with a table (train NLL, test top-1, seconds per epoch) and "
        "writes it, the learning curves and machine-readable results to a folder.",
    )
    _add_job(
        jobs,
        "tune",
        "find the settings that compare uses",
        "Try the same grid of learning rates and weight decays with every optimizer, on the validation "
        "images, and show the best of each. Takes about half an hour on two CPU cores.",
    )
    return parser


def _add_job(jobs: Any, name: str, summary: str, description: str) -> None:
    job = jobs.add_parser(name, help=summary, description=description)
    names, (_, seeds) = list(OPTIMIZERS), JOBS[name]
    job.add_argument(
        "--optimizers",
        nargs="+",
        choices=names,
        default=names,
        metavar="NAME",
        help=f"which optimizers to train, out of {', '.join(names)} (default: all)",
    )
    job.add_argument(
        "--seeds",
        type=_whole_number,
        default=seeds,
        metavar="N",
        help=f"how many runs of each setting, from different initial parameters (default: {seeds})",
    )
    job.add_argument(
        "--epochs",
        type=_whole_number,
        default=EPOCHS,
        metavar="N",
        help=f"passes over the training images in each run (default: {EPOCHS})",
    )
    job.add_argument(
        "--output",
        type=_folder,
        metavar="DIR",
        help=f"folder for the results; one that holds some with the same settings is continued "
        f"(default: runs/{name}-DATE-TIME)",
    )


def _whole_number(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= LARGEST):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {LARGEST}, got {text!r}")
    return int(text)


def _folder(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("must name a folder, got nothing")
    return Path(text)
