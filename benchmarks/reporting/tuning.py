"""Chooses learning rate and weight decay, with the same number of trials for every optimizer.

The test data take no part: settings are ranked by the negative log likelihood of the
validation data after the last epoch, averaged over the seeds. It decides better than the
share of right answers, of which small sets leave many ties.
"""

import collections
import dataclasses
import itertools
import math
import random
from collections.abc import Iterable

import numpy as np

from benchmarks.config.labels import TOLD, cells, duration, method, p_text, position, varying
from benchmarks.config.settings import Settings
from benchmarks.reporting.statistics import is_at_an_end
from benchmarks.reporting.tables import markdown_table
from benchmarks.training.records import Run

# The learning rates and decays that the LPSGDM paper tried (it tried two momenta and several p_max, too),
# for AdamW and Lion and for all others; STACEY's paper tells none.
ADAPTIVE = ("adam", "adamw", "lion")
RATES = (0.1, 0.05, 0.01, 0.002, 0.001, 0.0005)
DECAYS = (0.0, 0.1, 0.01, 0.005, 0.001, 0.0005, 0.0001, 0.00001)
ADAPTIVE_RATES = (0.01, 0.005, 0.001, 0.0005, 0.0003, 0.0001)
ADAPTIVE_DECAYS = (0.1, 0.01, 0.001, 0.0005, 0.0001, 0.00001)
TUNED = ("learning_rate", "weight_decay")


def trials(
    settings: Settings,
    rates: Iterable[float] | None,
    decays: Iterable[float] | None,
    count: int | None = None,
) -> list[Settings]:
    """Returns the settings to try: a grid (the paper's unless given), or `count` drawn from it.

    The draw is the same for all optimizers that share a grid, and has each learning rate as
    often as the others, give or take one.
    """
    adaptive = settings.optimizer in ADAPTIVE
    rates = rates or (ADAPTIVE_RATES if adaptive else RATES)
    decays = decays or (ADAPTIVE_DECAYS if adaptive else DECAYS)
    grid = list(itertools.product(rates, decays))
    if count is not None and count < len(grid):
        # Shuffled, then by how often a rate was there before: no rate twice until each was there once.
        shuffled, times = random.Random(0).sample(grid, len(grid)), collections.Counter[float]()
        turns = {}
        for rate, decay in shuffled:
            turns[rate, decay] = times[rate]
            times[rate] += 1
        grid = sorted(sorted(shuffled, key=turns.__getitem__)[:count], key=grid.index)
    return [dataclasses.replace(settings, learning_rate=rate, weight_decay=decay) for rate, decay in grid]


def table(runs: list[Run]) -> str:
    """Returns the best setting of each optimizer as a Markdown table."""
    kinds = _by_kind(runs)
    more = [name for name in varying(list(kinds)) if name not in TOLD]
    names = ["optimizer", "p", *(name.replace("_", " ") for name in more), "trials"]
    columns = [*names, "learning rate", "weight decay", "validation NLL", "validation top-1, %"]
    rows = [_row(kind, tried, more) for kind, tried in kinds.items()]
    return f"{markdown_table(columns, rows)}\n\n{_explanation(runs, more)}\n"


def _row(kind: Settings, tried: dict[Settings, list[Run]], more: list[str]) -> list[str]:
    best = _best(tried)
    epochs = [run.epochs[-1] for run in tried[best]]
    nll, top1 = (np.mean([epoch[f"held_out_{name}"] for epoch in epochs]) for name in ("nll", "top1"))
    rates = {setting.learning_rate for setting in tried}
    edge = " (edge)" if len(rates) > 1 and is_at_an_end(best.learning_rate, rates) else ""
    names = [method(kind), p_text(kind), *cells(kind, more), str(len(tried))]
    rate, decay = f"{best.learning_rate:g}{edge}", f"{best.weight_decay:g}"
    return [*names, rate, decay, f"{nll:.4f}", f"{100 * top1:.2f}"]


def choose(runs: list[Run]) -> list[Settings]:
    """Returns the best setting of each optimizer, with each p that was tried."""
    return [_best(tried) for tried in _by_kind(runs).values()]


def _best(tried: dict[Settings, list[Run]]) -> Settings:
    return min(tried, key=lambda setting: _score(tried[setting]))


def _by_kind(runs: list[Run]) -> dict[Settings, dict[Settings, list[Run]]]:
    """Returns the runs by what is not tuned, and then by setting."""
    kinds: dict[Settings, dict[Settings, list[Run]]] = {}
    for run in sorted(runs, key=lambda run: position(run.settings)):
        setting = dataclasses.replace(run.settings, seed=0)
        kind = dataclasses.replace(setting, learning_rate=0.0, weight_decay=0.0)
        kinds.setdefault(kind, {}).setdefault(setting, []).append(run)
    return kinds


def _score(runs: list[Run]) -> float:
    score = float(np.mean([run.epochs[-1]["held_out_nll"] for run in runs]))
    return math.inf if math.isnan(score) else score  # diverged


def _explanation(runs: list[Run], more: list[str]) -> str:
    rates, decays = (
        ", ".join(f"{value:g}" for value in sorted({getattr(run.settings, name) for run in runs}))
        for name in TUNED
    )
    first = runs[0].settings
    seeds = len({run.settings.seed for run in runs})
    over = "from one seed" if seeds == 1 else f"mean over {seeds} seeds"
    task = {
        "model": f"{first.model} on {first.dataset}, ",
        "batch_size": f"batches of {first.batch_size}, ",
        "epochs": f"{duration(first)}, ",
    }
    same = "".join(text for name, text in task.items() if name not in more)
    return f"Learning rates {rates} with weight decays {decays}; {same}ranked by the validation NLL, {over}."
