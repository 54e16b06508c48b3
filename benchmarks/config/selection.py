"""Which runs a command line asks for: presets, what overrides them, and seeds."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.config.optimizers import OPTIMIZERS, build_optimizer
from benchmarks.config.settings import Settings, SettingsError, presets

NEEDED = ("batch_size", "epochs", "learning_rate")
OWN = {name for optimizer in OPTIMIZERS.values() for name in optimizer.takes}


def select(
    dataset: str,
    model: str,
    optimizers: Sequence[str],
    seeds: Sequence[int],
    overrides: Mapping[str, Sequence[Any]],
    *,
    paper: str | None = None,
) -> list[Settings]:
    """Returns a run for every preset, every combination of overriding values, and every seed.

    A hyperparameter goes to the optimizers that take it. With values of p, each takes the
    preset of that p if there is one.
    """
    for name in overrides:
        if name in OWN and not any(name in OPTIMIZERS[optimizer].takes for optimizer in optimizers):
            raise SettingsError(f"--{option(name)} has no effect on {', '.join(optimizers)}")
    chosen = [
        settings
        for optimizer in optimizers
        for settings in _of_optimizer(dataset, model, optimizer, overrides, paper)
    ]
    for settings in chosen:
        _check(settings)
    runs = (dataclasses.replace(settings, seed=seed) for settings in chosen for seed in seeds)
    return list(dict.fromkeys(runs))


def _of_optimizer(
    dataset: str, model: str, optimizer: str, overrides: Mapping[str, Sequence[Any]], paper: str | None
) -> list[Settings]:
    takes = OPTIMIZERS[optimizer].takes
    own = {name: values for name, values in overrides.items() if name not in OWN or name in takes}
    rows = presets(dataset, model, optimizer, paper)
    if paper is not None and not rows:
        raise SettingsError(f"--paper {paper} has no preset for {optimizer} with {model} on {dataset}")
    combinations = [dict(zip(own, values, strict=True)) for values in itertools.product(*own.values())]
    names = {"dataset": dataset, "model": model, "optimizer": optimizer}
    return [
        _complete({**takes, **_without_warmup(row, combination), **names, **combination})
        for combination in combinations
        for row in _rows_with(rows or [{}], combination.get("p"))
    ]


def _rows_with(rows: list[dict[str, Any]], p: float | None) -> list[dict[str, Any]]:
    if p is None:
        return rows
    return [row for row in rows if row.get("p") == p] or rows[:1]


def _without_warmup(row: dict[str, Any], named: dict[str, Any]) -> dict[str, Any]:
    """Returns the preset without its warm-up where a constant learning rate is asked for."""
    if named.get("schedule") != "constant":
        return row
    if named.get("warmup_steps"):
        raise SettingsError("--warmup-steps has no effect on --schedule constant")
    return {name: value for name, value in row.items() if name != "warmup_steps"}


def _complete(values: dict[str, Any]) -> Settings:
    missing = [name for name in NEEDED if name not in values]
    if missing:
        options = ", ".join(f"--{option(name)}" for name in missing)
        raise SettingsError(
            f"there is no preset for {values['optimizer']} with {values['model']} on "
            f"{values['dataset']}: name {options}"
        )
    return Settings(**values)


def _check(settings: Settings) -> None:
    try:
        # How many steps an epoch has is not known yet: here enough for any warm-up.
        build_optimizer(settings, 1 + (settings.warmup_steps or 0))
    except ValueError as error:
        raise SettingsError(f"{settings.optimizer}: {error}") from error


def option(name: str) -> str:
    """Returns how the command line spells a setting."""
    return name.replace("_", "-")
