"""What decides a run, and the settings that the papers name for theirs.

`presets.csv` holds the rows of both papers (`paper` is lpsgdm or stacey) and the ones tuned
here (lpoptax). What a row leaves empty its paper does not tell, and the defaults below fill.
"""

import csv
import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, get_args, get_type_hints


class SettingsError(ValueError):
    """Settings that cannot be run; the message is for the user."""


PRESETS = Path(__file__).with_name("presets.csv")


class Allowed(NamedTuple):
    """What a value may be, in words and as a test."""

    text: str
    holds: Callable[[Any], bool]


LARGEST = 100_000_000
FROM_0 = Allowed(f"a whole number from 0 to {LARGEST}", lambda x: 0 <= x <= LARGEST)
FROM_1 = Allowed(f"a whole number from 1 to {LARGEST}", lambda x: 1 <= x <= LARGEST)
ABOVE_0 = Allowed("a number above 0", lambda x: 0 < x < math.inf)
ABOVE_1 = Allowed("a number above 1", lambda x: x > 1)
NOT_NEGATIVE = Allowed("a number from 0", lambda x: 0 <= x < math.inf)
BELOW_1 = Allowed("a number from 0 to below 1", lambda x: 0 <= x < 1)
SHARE = Allowed("a number from 0 to 1", lambda x: 0 <= x <= 1)


@dataclasses.dataclass(frozen=True)
class Settings:
    """All that decides a run. Hyperparameters that the optimizer does not take are None.

    What has a text is an option of the command line, which also checks what is allowed.
    """

    dataset: str
    model: str
    optimizer: str
    batch_size: Annotated[int, FROM_1, "images, or sequences of text, in a batch, over all devices"]
    epochs: Annotated[
        int, FROM_1, "passes over the training images; of text each has a fixed number of sequences"
    ]
    learning_rate: Annotated[float, ABOVE_0, "the peak"]
    weight_decay: Annotated[
        float, NOT_NEGATIVE, "added to the gradient for SGD and Adam, decoupled for the others"
    ] = 0.0
    p: Annotated[float | None, ABOVE_1, "the norm; LPSGD and LPSGDM lower it"] = None
    p_final: Annotated[float | None, ABOVE_1, "where it ends (default: 2); p itself for a constant p"] = None
    normalization: Annotated[
        Literal["rms", "dual_norm"] | None, "how long LPSGD's and LPSGDM's steps are (default: as published)"
    ] = None
    per_leaf: Annotated[bool | None, "whether each array is normalized by itself"] = None
    matrices: Annotated[
        Literal["hidden", "all"] | None, "which kernels are matrices to Muon and Schatten SGDM"
    ] = None  # hidden: all but those of the first and the last layer.
    nesterov: Annotated[bool | None, "whether the momentum of Schatten SGDM is Nesterov's"] = None
    b1: Annotated[float | None, BELOW_1, "decay rate of the momentum"] = None
    b2: Annotated[
        float | None, BELOW_1, "decay rate of the second moment, or of the momentum that is kept"
    ] = None
    eps: Annotated[float | None, NOT_NEGATIVE, "added to avoid a division by 0"] = None
    alpha: Annotated[float | None, ABOVE_0, "step of STACEY's mirror descent"] = None
    tau: Annotated[float | None, SHARE, "STACEY's coupling"] = None
    # As in the LPSGDM paper once an epoch.
    anneal: Annotated[Literal["epoch", "step"] | None, "when LPSGD and LPSGDM change p"] = None
    schedule: Annotated[Literal["warmup_cosine", "warmup_constant", "constant"], "of the learning rate"] = (
        "warmup_cosine"
    )
    warmup_steps: Annotated[
        int | None, FROM_0, "steps in which the learning rate rises (default: a twentieth of all)"
    ] = None
    # kernels: without biases and the scales of a BatchNorm.
    decay: Annotated[Literal["all", "kernels"], "what the weight decay acts on"] = "all"
    dtype: Annotated[Literal["float32", "bfloat16"], "what the model computes in"] = "float32"
    held_out: Annotated[
        Literal["test", "validation"],
        "what to evaluate on; what is for validation is left out of the training",
    ] = "test"
    seed: int = 0

    def plain(self) -> dict[str, Any]:
        """Returns what is set as plain data, such as JSON can hold."""
        values = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        return {name: "inf" if value == math.inf else value for name, value in values.items()}

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Self:
        """Returns the settings from plain data."""
        values: dict[str, Any] = {name: math.inf if x == "inf" else x for name, x in plain.items()}
        return cls(**values)


ANNOTATIONS = get_type_hints(Settings, include_extras=True)
KINDS = get_type_hints(Settings)
PAPERS = ("lpsgdm", "stacey", "lpoptax")


def option(name: str) -> str:
    """Returns how the command line spells a setting."""
    return f"--{name.replace('_', '-')}"


def check(named: Mapping[str, Any], annotations: Mapping[str, Any]) -> None:
    """Refuses what is not allowed, of values or tuples of values, by the annotations of their names."""
    for name, value in named.items():
        if value == ():
            raise SettingsError(f"{option(name)} must have a value, got nothing")
        for allowed in getattr(annotations[name], "__metadata__", ()):
            if isinstance(allowed, Allowed) and value is not None:
                for one in value if isinstance(value, tuple) else (value,):
                    if not allowed.holds(one):
                        raise SettingsError(f"{option(name)} must be {allowed.text}, got {one!r}")


def presets(dataset: str, model: str, optimizer: str, paper: str | None = None) -> list[dict[str, Any]]:
    """Returns the settings, but for the seed, that a paper names: the first that has some, or `paper`."""
    names = {"dataset": dataset, "model": model, "optimizer": optimizer}
    found = [row for row in _rows() if names.items() <= row.items() and paper in (None, row["paper"])]
    return [
        {name: value_of(name, text) for name, text in row.items() if text and name != "paper"}
        for row in found
        if row["paper"] == found[0]["paper"]
    ]


def _rows() -> list[dict[str, str]]:
    with PRESETS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def value_of(name: str, text: str) -> Any:
    """Returns the value of a setting from its text."""
    kinds = {KINDS[name], *get_args(KINDS[name])}
    return int(text) if int in kinds else float(text) if float in kinds else text
