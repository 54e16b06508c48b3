"""Chooses learning rate and weight decay, with the same number of trials for every optimizer.

The test images take no part: settings are ranked by the negative log likelihood of the
validation images after the last epoch, averaged over the seeds. It decides better than the
share of right answers, of which small sets leave many ties.
"""

import dataclasses
import itertools
import math
import random
from collections.abc import Iterable

import numpy as np

from benchmarks.comparison import duration
from benchmarks.optimizers import OPTIMIZERS, p_text, position
from benchmarks.recording import Run
from benchmarks.settings import Settings

# The grids of the LPSGDM paper, for AdamW and Lion and for all others; STACEY's paper tells none.
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

    The draw is the same for all optimizers that share a grid.
    """
    adaptive = settings.optimizer in ADAPTIVE
    rates = rates or (ADAPTIVE_RATES if adaptive else RATES)
    decays = decays or (ADAPTIVE_DECAYS if adaptive else DECAYS)
    grid = list(itertools.product(rates, decays))
    if count is not None and count < len(grid):
        grid = sorted(random.Random(0).sample(grid, count), key=grid.index)
    return [dataclasses.replace(settings, learning_rate=rate, weight_decay=decay) for rate, decay in grid]


def table(runs: list[Run]) -> str:
    """Returns the best setting of each optimizer as a Markdown table."""
    lines = [
        "| optimizer | p | trials | learning rate | weight decay | validation NLL | validation top-1, % |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, tried in _by_kind(runs).items():
        best = _best(tried)
        epochs = [run.epochs[-1] for run in tried[best]]
        nll, top1 = (np.mean([epoch[f"held_out_{name}"] for epoch in epochs]) for name in ("nll", "top1"))
        rates = [setting.learning_rate for setting in tried]
        edge = " (edge)" if best.learning_rate in (min(rates), max(rates)) else ""
        lines.append(
            f"| {OPTIMIZERS[kind.optimizer].label} | {p_text(kind)} | {len(tried)} "
            f"| {best.learning_rate:g}{edge} | {best.weight_decay:g} | {nll:.4f} | {100 * top1:.2f} |"
        )
    return "\n".join([*lines, "", _explanation(runs), ""])


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


def _explanation(runs: list[Run]) -> str:
    rates, decays = (
        ", ".join(f"{value:g}" for value in sorted({getattr(run.settings, name) for run in runs}))
        for name in TUNED
    )
    first = runs[0].settings
    seeds = len({run.settings.seed for run in runs})
    over = "from one seed" if seeds == 1 else f"mean over {seeds} seeds"
    return (
        f"Learning rates {rates} with weight decays {decays}; {first.model} on {first.dataset}, batches of "
        f"{first.batch_size}, {duration(first)}, ranked by the validation NLL, {over}."
    )
