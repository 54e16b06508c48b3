"""Chooses learning rate and weight decay, with the same number of trials for every optimizer.

The test data take no part: settings are ranked by the negative log likelihood of the
validation data after the last epoch, averaged over the seeds. It decides better than the
share of right answers, of which small sets leave many ties.
"""

import dataclasses
import itertools
import random
from collections.abc import Iterable

import pandas as pd

from benchmarks.config.labels import TOLD, columns, duration, method, p_text, position, varying
from benchmarks.config.settings import Settings
from benchmarks.reporting.statistics import final, is_at_an_end, scores
from benchmarks.reporting.tables import table_of
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
    shuffled = random.Random(0).sample(grid, len(grid))
    # By how often a rate was there before: no rate twice until each was there once.
    turns = pd.DataFrame(shuffled).groupby(0).cumcount().sort_values(kind="stable")
    drawn = sorted((shuffled[index] for index in turns.index[:count]), key=grid.index)
    return [dataclasses.replace(settings, learning_rate=rate, weight_decay=decay) for rate, decay in drawn]


def table(runs: Iterable[Run]) -> str:
    """Returns the best setting of each optimizer as a Markdown table."""
    tried = _tried(runs)
    best = [_best(same) for _, same in tried.groupby("kind", sort=False)]
    more = varying(tried.kind, but=TOLD)
    named = {"optimizer": map(method, best), "p": map(p_text, best)}
    found = [_found(same) for _, same in tried.groupby("kind", sort=False)]
    table = pd.concat([pd.DataFrame(named), columns(best, more), pd.DataFrame(found)], axis=1)
    return f"{table_of(table)}\n\n{_explanation(tried, more)}\n"


def _found(tried: pd.DataFrame) -> dict[str, str]:
    best, rates = _best(tried), set(tried.learning_rate)
    edge = " (edge)" if len(rates) > 1 and is_at_an_end(best.learning_rate, rates) else ""
    nll, top1 = (tried[tried.setting == best][name].to_numpy().mean() for name in ("held_out_nll", "top1"))
    return {
        "trials": str(tried.setting.nunique()),
        "learning rate": f"{best.learning_rate:g}{edge}",
        "weight decay": f"{best.weight_decay:g}",
        "validation NLL": f"{nll:.4f}",
        "validation top-1, %": f"{top1:.2f}",
    }


def choose(runs: Iterable[Run]) -> list[Settings]:
    """Returns the best setting of each optimizer, with each p that was tried."""
    return [_best(tried) for _, tried in _tried(runs).groupby("kind", sort=False)]


def _best(tried: pd.DataFrame) -> Settings:
    return scores(tried, "setting").idxmin()


def _tried(runs: Iterable[Run]) -> pd.DataFrame:
    """Returns how the runs ended, with what is not tuned."""
    frame = final(sorted(runs, key=lambda run: position(run.settings)))
    kinds = [dataclasses.replace(one, learning_rate=0.0, weight_decay=0.0) for one in frame.setting]
    return frame.assign(kind=kinds)


def _explanation(frame: pd.DataFrame, more: list[str]) -> str:
    rates, decays = (", ".join(f"{value:g}" for value in sorted(set(frame[name]))) for name in TUNED)
    first, seeds = frame.setting.iloc[0], frame.seed.nunique()
    over = "from one seed" if seeds == 1 else f"mean over {seeds} seeds"
    task = {
        "model": f"{first.model} on {first.dataset}, ",
        "batch_size": f"batches of {first.batch_size}, ",
        "epochs": f"{duration(first)}, ",
    }
    same = "".join(text for name, text in task.items() if name not in more)
    return f"Learning rates {rates} with weight decays {decays}; {same}ranked by the validation NLL, {over}."
