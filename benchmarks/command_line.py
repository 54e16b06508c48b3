"""Options, and errors of one line."""

import argparse
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from benchmarks.compare import EPOCHS, compare
from benchmarks.optimizers import OPTIMIZERS
from benchmarks.recording import FolderError
from benchmarks.tune import tune

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
    try:
        job(list(dict.fromkeys(options.optimizers)), options.seeds, options.epochs, output, Console())
    except FolderError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
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
        type=whole_number,
        default=seeds,
        metavar="N",
        help=f"how many runs of each setting, from different initial parameters (default: {seeds})",
    )
    job.add_argument(
        "--epochs",
        type=whole_number,
        default=EPOCHS,
        metavar="N",
        help=f"passes over the training images in each run (default: {EPOCHS})",
    )
    job.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help=f"folder for the results; one that holds some with the same settings is continued "
        f"(default: runs/{name}-DATE-TIME)",
    )


def whole_number(text: str) -> int:
    """Returns the number in `text`, which must be at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


whole_number.__name__ = "whole number"  # how argparse calls it in an error
