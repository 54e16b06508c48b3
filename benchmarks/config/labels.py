"""What settings are called in tables, figures and messages."""

import collections
import dataclasses
from collections.abc import Collection, Iterable, Sequence

import pandas as pd

from benchmarks.config import annealing
from benchmarks.config.optimizers import OPTIMIZERS
from benchmarks.config.schedules import final_p
from benchmarks.config.settings import Settings

HYPERPARAMETERS = [*{"learning_rate", "weight_decay"}.union(*(one.takes for one in OPTIMIZERS.values()))]
TOLD = (
    "optimizer",
    "normalization",
    "per_leaf",
    "matrices",
    "nesterov",
    "p",
    "p_final",
)  # by method and p_text.
LENGTHS = {"rms": "at unit RMS", "dual_norm": "with the dual norm"}  # by normalization.


def method(settings: Settings) -> str:
    """Returns the optimizer's name, with the length, matrices and momentum of its steps if not the usual."""
    optimizer = OPTIMIZERS[settings.optimizer]
    more = ""
    if settings.normalization is not None:
        more = f" {LENGTHS[settings.normalization]}{' of each leaf' if settings.per_leaf else ''}"
    if settings.matrices not in (None, optimizer.takes.get("matrices")):
        more = f" of {settings.matrices} matrices"
    return f"{optimizer.label}{more}{' with plain momentum' if settings.nesterov is False else ''}"


def label(settings: Settings) -> str:
    """Returns the method, with its p if it takes one."""
    name = method(settings)
    if settings.p is None:
        return name
    if name.startswith("STACEY"):
        return name.replace("p", f"{settings.p:g}")
    return f"{name}, p {p_text(settings)}"


def p_text(settings: Settings) -> str:
    """Returns p, and where it goes."""
    optimizer = OPTIMIZERS[settings.optimizer]
    start = optimizer.norm if settings.p is None else settings.p
    if start is None:
        return "none"
    return annealing.label(start, final_p(settings) if optimizer.anneals else start)


def position(settings: Settings) -> tuple[float, ...]:
    """Returns what to sort by, so that optimizers stand in the order of the table above."""
    return list(OPTIMIZERS).index(settings.optimizer), settings.p or 0, settings.learning_rate, settings.seed


def without_seed(settings: Settings) -> Settings:
    """Returns what the runs over all seeds share."""
    return dataclasses.replace(settings, seed=0)


def _frame(settings: Iterable[Settings]) -> pd.DataFrame:
    names = [field.name for field in dataclasses.fields(Settings)]
    return pd.DataFrame(map(vars, settings), columns=names, dtype=object)


def varying(settings: Iterable[Settings], but: Collection[str] = ()) -> list[str]:
    """Returns the names of what differs: a hyperparameter between settings of the same optimizer."""
    frame = _frame(settings)
    counts = frame.nunique(dropna=False)
    counts.update(frame.groupby("optimizer")[HYPERPARAMETERS].nunique(dropna=False).max())
    return [name for name in frame if counts[name] > 1 and name not in but]


def columns(settings: Iterable[Settings], names: Iterable[str]) -> pd.DataFrame:
    """Returns what these settings are as text, with a heading for each name."""
    frame = _frame(settings)[list(names)].fillna("default").astype(str)
    return frame.rename(columns=lambda name: name.replace("_", " "))


def names(settings: Sequence[Settings]) -> dict[Settings, str]:
    """Returns a name for each setting, with what sets it apart from others of its optimizer and p."""
    by_label = collections.defaultdict(list)
    for setting in settings:
        by_label[label(setting)].append(setting)
    shared = varying(settings, but=(*HYPERPARAMETERS, "optimizer"))
    found = {}
    for text, same in by_label.items():
        more = columns(same, dict.fromkeys([*varying(same), *shared]))
        for setting, (_, cells) in zip(same, more.iterrows(), strict=True):
            found[setting] = ", ".join([text, *map(" ".join, cells.items())])
    return found


def duration(settings: Settings) -> str:
    """Says for how long a run trains."""
    return "1 epoch" if settings.epochs == 1 else f"{settings.epochs} epochs"
