"""What settings are called in tables, figures and messages."""

import dataclasses

from benchmarks.config import annealing
from benchmarks.config.optimizers import OPTIMIZERS, final_p
from benchmarks.config.settings import Settings

HYPERPARAMETERS = {"learning_rate", "weight_decay"}.union(*(one.takes for one in OPTIMIZERS.values()))
TOLD = ("optimizer", "normalization", "per_leaf", "p", "p_final")  # by method and p_text.
LENGTHS = {"rms": "at unit RMS", "dual_norm": "with the dual norm"}  # by normalization.


def method(settings: Settings) -> str:
    """Returns the optimizer's name, with the length of its steps if that is not as published."""
    name = OPTIMIZERS[settings.optimizer].label
    if settings.normalization is None:
        return name
    return f"{name} {LENGTHS[settings.normalization]}{' of each leaf' if settings.per_leaf else ''}"


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


def varying(settings: list[Settings]) -> list[str]:
    """Returns the names of what differs: a hyperparameter between settings of the same optimizer."""
    by_optimizer: dict[str, list[Settings]] = {}
    for setting in settings:
        by_optimizer.setdefault(setting.optimizer, []).append(setting)

    def varies(name: str) -> bool:
        groups = by_optimizer.values() if name in HYPERPARAMETERS else [settings]
        return any(len({getattr(one, name) for one in group}) > 1 for group in groups)

    return [field.name for field in dataclasses.fields(Settings) if varies(field.name)]


def cells(setting: Settings, names: list[str]) -> list[str]:
    """Returns the values of what varies as text."""
    values = [getattr(setting, name) for name in names]
    return ["default" if value is None else str(value) for value in values]


def names(settings: list[Settings]) -> dict[Settings, str]:
    """Returns a name for each setting, with what sets it apart from others of its optimizer and p."""
    by_label: dict[str, list[Settings]] = {}
    for setting in settings:
        by_label.setdefault(label(setting), []).append(setting)
    shared = [name for name in varying(settings) if name not in HYPERPARAMETERS and name != "optimizer"]
    found = {}
    for text, same in by_label.items():
        more = list(dict.fromkeys([*varying(same), *shared]))
        texts = [name.replace("_", " ") for name in more]
        for setting in same:
            pairs = zip(texts, cells(setting, more), strict=True)
            found[setting] = ", ".join([text, *map(" ".join, pairs)])
    return {setting: found[setting] for setting in settings}


def duration(settings: Settings) -> str:
    """Says for how long a run trains."""
    return "1 epoch" if settings.epochs == 1 else f"{settings.epochs} epochs"
