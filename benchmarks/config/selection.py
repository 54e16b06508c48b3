"""Which runs a command line asks for: presets, what overrides them, and seeds."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.config.optimizers import OPTIMIZERS
from benchmarks.config.schedules import build_optimizer
from benchmarks.config.settings import Settings, SettingsError, option, presets

Overrides = Mapping[str, Sequence[Any]]
NEEDED = ("batch_size", "epochs", "learning_rate")
OWN = {name for optimizer in OPTIMIZERS.values() for name in optimizer.takes}


def select(
    dataset: str,
    model: str,
    optimizers: Sequence[str] | None,
    seeds: Sequence[int],
    overrides: Overrides,
    *,
    paper: str | None = None,
) -> list[Settings]:
    """Returns a run for every preset, every combination of overriding values, and every seed.

    Without optimizers it is those with a preset. A hyperparameter goes to the optimizers that take
    it. With values of p, each takes the preset of that p if there is one.
    """
    optimizers = optimizers or [name for name in OPTIMIZERS if presets(dataset, model, name, paper)]
    if not optimizers:
        of_paper = "" if paper is None else f" of --paper {paper}"
        raise SettingsError(f"there is no preset{of_paper} for {model} on {dataset}: name --optimizers")
    for name in overrides:
        if name in OWN and not any(name in OPTIMIZERS[optimizer].takes for optimizer in optimizers):
            raise SettingsError(f"{option(name)} has no effect on {', '.join(optimizers)}")
    names = [{"dataset": dataset, "model": model, "optimizer": optimizer} for optimizer in optimizers]
    chosen = [settings for one in names for settings in _of_optimizer(one, overrides, paper)]
    runs = (dataclasses.replace(settings, seed=seed) for settings in chosen for seed in seeds)
    return list(dict.fromkeys(runs))


def _of_optimizer(names: dict[str, str], overrides: Overrides, paper: str | None) -> Iterator[Settings]:
    takes = OPTIMIZERS[names["optimizer"]].takes
    own = {name: values for name, values in overrides.items() if name not in OWN or name in takes}
    rows = presets(**names, paper=paper)
    if paper is not None and not rows:
        raise SettingsError(f"--paper {paper} has no preset for {_told(names)}")
    for values in itertools.product(*own.values()):
        named = dict(zip(own, values, strict=True))
        p, constant = named.get("p"), named.get("schedule") == "constant"
        if constant and named.get("warmup_steps"):
            raise SettingsError("--warmup-steps has no effect on --schedule constant")
        for row in [row for row in rows if p in (None, row.get("p"))] or rows[:1] or [{}]:
            # A constant learning rate has no warm-up, whatever the preset.
            kept = {name: value for name, value in row.items() if not (constant and name == "warmup_steps")}
            yield _checked({**takes, **kept, **names, **named})


def _checked(values: dict[str, Any]) -> Settings:
    if missing := [option(name) for name in NEEDED if name not in values]:
        raise SettingsError(f"there is no preset for {_told(values)}: name {', '.join(missing)}")
    settings = Settings(**values)
    try:
        # How many steps an epoch has is not known yet: here enough for any warm-up.
        build_optimizer(settings, 1 + (settings.warmup_steps or 0))
    except ValueError as error:
        raise SettingsError(f"{settings.optimizer}: {error}") from error
    return settings


def _told(names: Mapping[str, str]) -> str:
    return "{optimizer} with {model} on {dataset}".format_map(names)
