"""The command line: which job runs, and errors of one line."""

import logging
import re
import sys
from collections.abc import Sequence
from typing import Any, get_type_hints

import jax
from rich.console import Console
from tyro.conf import DisallowNone, OmitArgPrefixes
from tyro.extras import subcommand_cli_from_dict

from benchmarks.config.settings import ANNOTATIONS, SettingsError, check
from benchmarks.data.registry import DataError
from benchmarks.jobs import Compare, Images, Prepare, Report, Study, Sweep, Text, Time, Tune
from benchmarks.training.records import FolderError

PROGRAM = "python -m benchmarks"
JOBS: dict[str, type] = {
    job.__name__.lower(): job for job in (Compare, Images, Text, Sweep, Tune, Time, Report, Prepare)
}
# A module of benchmarks.studies each: what it does, and whether it measures only what its folder lacks.
STUDIES = {
    "compiled": ("Compile the steps of optimizers for TPUs that are not there.", True),
    "landscapes": ("Count the steps that descent in each lp norm takes on quadratics.", False),
    "gaussians": ("Descend to the mode of p-generalised Gaussians.", False),
    "convergence": ("Fit the rate at which gradients vanish to that of the theorems.", False),
    "hessian": ("Measure the spectrum of the Hessian while networks train.", True),
    "learning_rates": ("Find how far the best learning rate moves with p, by how long a step is.", True),
    "matrices": ("Train with every p on singular values, beside Muon and AdamW.", True),
    "step_time": ("Time the steps of optimizers on the parameters of two networks.", False),
    "suite_targets": ("Fix the targets of the suite, before its contestants run.", True),
    "suite": ("Compare optimizers over workloads of many kinds, tuned and untuned.", True),
    "unscaled_inputs": ("Train on inputs that nobody scaled, where the recipe fails.", False),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the job that the command line names; returns the exit code."""
    job: Any = None
    try:
        job = _read(sys.argv[1:] if arguments is None else arguments)
        # One of several processes speaks for all; a path may hold anything.
        quiet = getattr(job, "distributed", None) is not None and jax.process_index() > 0
        console = Console(markup=False, emoji=False, highlight=False, quiet=quiet)
        # Orbax logs what it raises, too.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        return job.run(console) or 0
    except (FolderError, DataError, SettingsError) as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        if getattr(job, "output", None):
            again = f"Interrupted. To continue, repeat the command with --output {job.output}"
            console.print(again, soft_wrap=True)
        return 130


def _read(arguments: Sequence[str]) -> Any:
    """Returns the job with its options."""
    if "" in arguments:  # such as a shell makes of a variable that is not set.
        raise SettingsError("an option must have a value, got nothing")
    studies = {
        name: type(name, (Study,), {"__doc__": text, "name": name, "continues": continues})
        for name, (text, continues) in STUDIES.items()
    }
    job = subcommand_cli_from_dict(
        {**JOBS, **studies},
        prog=PROGRAM,
        description="Train networks with lpoptax's optimizers and Optax's, and compare them. "
        f"Start with: {PROGRAM} compare (about two minutes on two CPU cores)",
        args=arguments,
        config=(OmitArgPrefixes, DisallowNone),
    )
    check(vars(job), get_type_hints(type(job), include_extras=True))
    check(getattr(job, "settings", {}), ANNOTATIONS)
    if getattr(job, "distributed", None) is not None:
        _join(job.distributed)
    return job


def _join(place: Sequence[str]) -> None:
    """Connects the processes."""
    text = " ".join(place)
    if not re.fullmatch(r"(\S+:\d+ \d+ \d+)?", text):
        raise SettingsError(f"--distributed must be nothing or ADDRESS:PORT COUNT RANK, got {text!r}")
    address_count_rank: list[Any] = [*place[:1], *map(int, place[1:])]
    try:
        jax.distributed.initialize(*address_count_rank)
    except (RuntimeError, ValueError) as error:
        raise SettingsError(f"--distributed: {' '.join(str(error).split())}") from error
