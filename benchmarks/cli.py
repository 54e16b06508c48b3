"""Options, and errors of one line."""

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from benchmarks import jobs
from benchmarks.config.settings import SettingsError
from benchmarks.data import registry as datasets
from benchmarks.data.registry import DataError
from benchmarks.options import (
    Parser,
    add_data_dir,
    add_optimizers,
    add_output,
    add_running,
    add_seeds,
    add_settings,
    add_workload,
    count,
    folder,
    whole_number,
)
from benchmarks.training.records import FolderError

Add = Callable[..., Any]


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
        return options.run(options, console) or 0
    except (FolderError, DataError, SettingsError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    except KeyboardInterrupt:
        if getattr(options, "output", None):
            again = f"Interrupted. To continue, repeat the command with --output {options.output}"
            console.print(again, soft_wrap=True)
        return 130


def _join(place: list[str], parser: Parser) -> None:
    """Connects the processes."""
    text = " ".join(place)
    if not re.fullmatch(r"(\S+:\d+ \d+ \d+)?", text):
        parser.error(f"argument --distributed: must be nothing or ADDRESS:PORT COUNT RANK, got {text!r}")
    address, count, rank = (place[0], int(place[1]), int(place[2])) if place else (None, None, None)
    try:
        jax.distributed.initialize(address, count, rank)
    except (RuntimeError, ValueError) as error:
        parser.error(f"argument --distributed: {' '.join(str(error).split())}")


def _parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks",
        description="Train networks with lpoptax's optimizers and Optax's, and compare them.",
        epilog="Start with: python -m benchmarks compare (about two minutes on two CPU cores)",
    )
    add = parser.add_subparsers(required=True, metavar="JOB").add_parser
    _add_compare(add)
    _add_run(add, "images", "one run: a model, a dataset, an optimizer", text=False)
    _add_run(add, "text", "the same, of a language model", text=True)
    _add_sweep(add)
    _add_tune(add)
    _add_time(add)
    _add_report(add)
    _add_prepare(add)
    _add_studies(add)
    return parser


def _job(add: Add, name: str, run: Callable[..., int | None], summary: str, description: str) -> Parser:
    job: Parser = add(name, help=summary, description=description)
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
    add_optimizers(job, jobs.COMPARED, several=True, choices=jobs.COMPARED)
    add_seeds(job, 3)
    job.add_argument(
        "--epochs", type=whole_number, nargs=1, metavar="N", help="passes over the data (default: 20)"
    )
    add_data_dir(job)
    add_output(job)


def _add_run(add: Add, name: str, summary: str, *, text: bool) -> None:
    job = _job(
        add,
        name,
        jobs.run_one,
        summary,
        "Train one model on one dataset with one optimizer. The settings are those of the paper that has "
        "this combination, if one has; any of them may be named instead. Repeated with the same --output, "
        "a run that was cut off continues.",
    )
    add_workload(job, text=text)
    add_optimizers(job, ["lpsgdm"], several=False)
    add_settings(job, several=False)
    job.add_argument(
        "--seed",
        type=count,
        default=0,
        metavar="N",
        help="of the initial parameters, the order of the data and its augmentation (default: 0)",
    )
    add_running(job)


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
    add_workload(job)
    add_optimizers(job, None, several=True)
    add_settings(job, several=True)
    add_seeds(job, 5)
    add_running(job)


def _add_tune(add: Add) -> None:
    job = _job(
        add,
        "tune",
        jobs.run_tune,
        "choose learning rate and weight decay on validation data",
        "Try the same number of learning rates and weight decays with every optimizer, of those "
        "that the LPSGDM paper tried or of the values named, and show the best of each. A part of "
        "the training data is held out for that; the test data take no part.",
    )
    add_workload(job)
    add_optimizers(job, None, several=True)
    add_settings(job, several=True, but=["held_out"])
    add_seeds(job, 1)
    job.add_argument(
        "--trials",
        type=whole_number,
        metavar="N",
        help="how many settings to draw from the grid, the same for each (default: all)",
    )
    add_running(job)


def _add_time(add: Add) -> None:
    job = _job(
        add,
        "time",
        jobs.run_time,
        "images or sequences per second, and what the time goes into",
        "Train two epochs with each optimizer and show the speed of the second, the share of it spent "
        "waiting for data, and the share of a step spent in the optimizer.",
    )
    add_workload(job)
    add_optimizers(job, None, several=True)
    add_settings(job, several=True, but=["epochs", "warmup_steps", "held_out"])
    add_data_dir(job)
    add_output(job, "folder to write the table to, too")


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
        "--at", type=whole_number, nargs="+", metavar="EPOCH", help="epochs to tabulate (default: the last)"
    )
    add_optimizers(job, None, several=True, without="all that there are")
    add_output(job, "folder for the table and the curves (default: DIR)")


def _add_prepare(add: Add) -> None:
    job = _job(
        add,
        "prepare",
        jobs.prepare,
        "get a dataset",
        "Make a dataset ready with TensorFlow Datasets, once. CIFAR is downloaded, Fashion-MNIST comes "
        "from the Debian package dataset-fashion-mnist, ImageNet from its two tar files; the text of "
        "Austen's novels from the package r-cran-janeaustenr, C4 from a folder of TensorFlow Datasets.",
    )
    job.add_argument(
        "dataset", choices=datasets.NAMES, metavar="NAME", help=f"one of {', '.join(datasets.NAMES)}"
    )
    job.add_argument(
        "--source", type=folder, metavar="DIR", help="folder with the files as they are published"
    )
    add_data_dir(job)


# A module of benchmarks.studies each: what it does, and whether it measures only what its folder lacks.
STUDIES = {
    "landscapes": ("Count the steps that descent in each lp norm takes on quadratics.", False),
    "gaussians": ("Descend to the mode of p-generalised Gaussians.", False),
    "convergence": ("Fit the rate at which gradients vanish to that of the theorems.", False),
    "hessian": ("Measure the spectrum of the Hessian while networks train.", True),
    "learning_rates": (
        "Find how far the best learning rate moves with p, by how long a step is made.",
        True,
    ),
    "step_time": ("Time the steps of optimizers on the parameters of two networks.", False),
    "unscaled_inputs": ("Train on inputs that nobody scaled, where the recipe fails.", False),
}


def _add_studies(add: Add) -> None:
    for name, (description, continues) in STUDIES.items():
        summary = f"a study: {description[0].lower()}{description[1:-1]}"
        job = _job(add, name, jobs.run_study, summary, description)
        job.set_defaults(continues=continues)
        job.add_argument(
            "--quick", action="store_true", help="take seconds: a check that it runs, on a problem cut small"
        )
        add_output(job, f"folder for the results (default: runs/{name}, or runs/{name}-quick)")
