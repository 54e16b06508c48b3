"""The options that several jobs share, and what their values may be."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.config.optimizers import OPTIMIZERS
from benchmarks.config.selection import option
from benchmarks.config.settings import CHOICES, PAPERS
from benchmarks.data import registry as datasets
from benchmarks.models.registry import MODELS

LARGEST = 100_000_000


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Prints the message and exits with 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def add_workload(job: Parser, *, text: bool | None = None) -> None:
    """Adds what is trained on what, and with whose settings; for images or text alone if told so."""
    data = [name for name in datasets.NAMES if text in (None, datasets.is_text(name))]
    models = [name for name, model in MODELS.items() if text in (None, model.takes == "sequences")]
    for name, choices, default in (
        ("--dataset", data, "stdlib" if text else "digits"),
        ("--model", models, "llama_small" if text else "resnet8"),
    ):
        job.add_argument(
            name,
            choices=choices,
            default=default,
            metavar="NAME",
            help=f"one of {', '.join(choices)} (default: {default})",
        )
    job.add_argument(
        "--paper",
        choices=PAPERS,
        metavar="NAME",
        help=f"whose settings to take, of {', '.join(PAPERS)} (default: the first that has some)",
    )


def add_optimizers(
    job: Parser,
    default: Sequence[str] | None,
    *,
    several: bool,
    choices: Sequence[str] = tuple(OPTIMIZERS),
    without: str = "those that have a preset",
) -> None:
    """Adds the choice of optimizers, or of one."""
    shown = without if default is None else " ".join(default)
    job.add_argument(
        "--optimizers" if several else "--optimizer",
        dest="optimizers",
        nargs="+" if several else 1,
        choices=choices,
        default=default and list(default),
        metavar="NAME",
        help=f"of {', '.join(choices)} (default: {shown})",
    )


def add_settings(job: Parser, *, several: bool, but: Sequence[str] = ()) -> None:
    """Adds an option for each setting but those named."""
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


def add_seeds(job: Parser, default: int) -> None:
    """Adds the number of seeds."""
    job.add_argument(
        "--seeds",
        type=whole_number,
        default=default,
        metavar="N",
        help=f"how many runs of each setting, from different initial parameters (default: {default})",
    )


def add_running(job: Parser) -> None:
    """Adds where data and results are, and how processes are joined."""
    add_data_dir(job)
    add_output(job)
    job.add_argument(
        "--distributed",
        nargs="*",
        metavar="X",
        help="train in several processes together, each started with this command: on a cluster that JAX "
        "knows without more, elsewhere with ADDRESS:PORT of the first process, their number, and the "
        "number of this one, from 0; --output must be a folder that all see",
    )


def add_data_dir(job: Parser) -> None:
    """Adds the folder of the data."""
    job.add_argument(
        "--data-dir",
        type=folder,
        metavar="DIR",
        help="where TensorFlow Datasets keeps its data (default: its own, ~/tensorflow_datasets)",
    )


def add_output(job: Parser, text: str | None = None) -> None:
    """Adds the folder of the results."""
    text = text or "folder for the results; one that holds some is continued (default: runs/JOB-DATE-TIME)"
    job.add_argument("--output", type=folder, metavar="DIR", help=text)


def whole_number(text: str) -> int:
    """Reads a number of things."""
    if not (text.isdecimal() and 1 <= int(text) <= LARGEST):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {LARGEST}, got {text!r}")
    return int(text)


def count(text: str) -> int:
    """Reads a number that may be 0."""
    if not (text.isdecimal() and int(text) <= LARGEST):
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {LARGEST}, got {text!r}")
    return int(text)


def number(allowed: Callable[[float], bool], text: str) -> Callable[[str], float]:
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


def truth(text: str) -> bool:
    """Reads whether something is so."""
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be true or false, got {text!r}")
    return text == "true"


def folder(text: str) -> Path:
    """Reads the name of a folder."""
    if not text:
        raise argparse.ArgumentTypeError("must name a folder, got nothing")
    return Path(text)


positive = number(lambda x: 0 < x < float("inf"), "above 0")
not_negative = number(lambda x: 0 <= x < float("inf"), "from 0")
rate = number(lambda x: 0 <= x < 1, "from 0 to below 1")

SETTINGS: dict[str, tuple[Callable[[str], Any], str]] = {
    "batch_size": (whole_number, "images, or sequences of text, in a batch, over all devices"),
    "epochs": (whole_number, "passes over the training images; of text each has a fixed number of sequences"),
    "learning_rate": (positive, "the peak"),
    "weight_decay": (not_negative, "added to the gradient for SGD and Adam, decoupled for the others"),
    "p": (number(lambda x: x > 1, "above 1"), "the norm; LPSGD and LPSGDM lower it"),
    "p_final": (number(lambda x: x > 1, "above 1"), "where it ends (default: 2); p itself for a constant p"),
    "anneal": (str, "when LPSGD and LPSGDM change p"),
    "normalization": (str, "how long LPSGD's and LPSGDM's steps are (default: as published)"),
    "per_leaf": (truth, "whether each array is normalized by itself: true or false"),
    "b1": (rate, "decay rate of the momentum"),
    "b2": (rate, "decay rate of the second moment, or of the momentum that is kept"),
    "eps": (not_negative, "added to avoid a division by 0"),
    "alpha": (positive, "step of STACEY's mirror descent"),
    "tau": (number(lambda x: 0 <= x <= 1, "from 0 to 1"), "STACEY's coupling"),
    "schedule": (str, "of the learning rate"),
    "warmup_steps": (count, "steps in which the learning rate rises (default: a twentieth of all)"),
    "decay": (str, "what the weight decay acts on"),
    "dtype": (str, "what the model computes in"),
    "held_out": (str, "what to evaluate on; what is for validation is left out of the training"),
}
