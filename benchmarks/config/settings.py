"""What decides a run, and the settings that the papers name for theirs.

`presets.csv` holds the rows of both papers (`paper` is lpsgdm or stacey) and the ones tuned
here (lpoptax). What a row leaves empty its paper does not tell, and the defaults below fill.
"""

import csv
import dataclasses
import math
from pathlib import Path
from typing import Any, Literal, Self


class SettingsError(ValueError):
    """Settings that cannot be run; the message is for the user."""


PRESETS = Path(__file__).with_name("presets.csv")


@dataclasses.dataclass(frozen=True)
class Settings:
    """All that decides a run. Hyperparameters that the optimizer does not take are None."""

    dataset: str
    model: str
    optimizer: str
    batch_size: int
    epochs: int
    learning_rate: float  # the peak.
    weight_decay: float = 0.0
    p: float | None = None  # where a cosine starts from, for an optimizer that anneals p.
    p_final: float | None = None  # where it ends; None for 2. If it is p, then p is constant.
    normalization: Literal["rms", "dual_norm"] | None = None  # how long a step is; None for as published.
    per_leaf: bool | None = None  # whether each leaf is normalized by itself.
    b1: float | None = None
    b2: float | None = None
    eps: float | None = None
    alpha: float | None = None
    tau: float | None = None
    anneal: str | None = None  # when p changes, for an optimizer that anneals it.
    schedule: str = "warmup_cosine"
    warmup_steps: int | None = None  # None for a twentieth of all steps.
    decay: str = "all"
    dtype: str = "float32"
    held_out: Literal["test", "validation"] = "test"
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


CHOICES = {
    "normalization": ("rms", "dual_norm"),
    "anneal": ("epoch", "step"),  # once an epoch, as in the LPSGDM paper, or every step.
    "schedule": ("warmup_cosine", "constant"),
    "decay": ("all", "kernels"),  # kernels: without biases and the scales of a BatchNorm.
    "dtype": ("float32", "bfloat16"),
    "held_out": ("test", "validation"),
}
PAPERS = ("lpsgdm", "stacey", "lpoptax")
TYPES = {"batch_size": int, "epochs": int, "warmup_steps": int}
NUMBERS = ("learning_rate", "weight_decay", "p", "p_final", "b1", "b2", "eps", "alpha", "tau")


def presets(dataset: str, model: str, optimizer: str, paper: str | None = None) -> list[dict[str, Any]]:
    """Returns the settings, but for the seed, that a paper names: the first that has some, or `paper`."""
    names = {"dataset": dataset, "model": model, "optimizer": optimizer}
    found = [row for row in _rows() if names.items() <= row.items() and paper in (None, row["paper"])]
    return [
        {name: _value(name, text) for name, text in row.items() if text and name != "paper"}
        for row in found
        if row["paper"] == found[0]["paper"]
    ]


def _rows() -> list[dict[str, str]]:
    with PRESETS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _value(name: str, text: str) -> Any:
    return float(text) if name in NUMBERS else TYPES.get(name, str)(text)
