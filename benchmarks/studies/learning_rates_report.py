"""What the results of `benchmarks.studies.learning_rates` say: tables, and heat maps.

All are made of data frames with a row for each run, as `benchmarks.reporting.statistics.final` makes them.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from benchmarks.reporting.statistics import (
    TOP1,
    difference,
    is_at_an_end,
    mean_std,
    measure_of,
    scores,
)
from benchmarks.reporting.tables import markdown_table, table_of

PUBLISHED, RMS = "LPSGDM", "LPSGDM at unit RMS"
LENGTHS = {PUBLISHED: "as published", "LPSGDM with the dual norm": "dual norm", RMS: "unit RMS"}  # by method.
SHOWN = {"top-1": 20.0, "NLL": 1.5}  # how far below the best the colors reach.
CHOICE = ["dataset", "method", "p", "learning_rate"]  # what tells a run from others, but for its seed.


def key(row: pd.Series) -> tuple[Hashable, ...]:
    """Returns what tells a run from others, but for its seed."""
    return tuple(row[CHOICE])


def best_rate(frame: pd.DataFrame) -> float:
    """Returns the learning rate with the lowest mean NLL."""
    return float(scores(frame, ["learning_rate"]).idxmin())


def best_for_all(frame: pd.DataFrame, by: list[str], across: str) -> Any:
    """Returns the choice with the lowest mean ratio of the NLL to the lowest of each task, or of each p."""
    found = scores(frame, [*by, across]).unstack(across)
    return (found / found.min()).mean(axis=1, skipna=False).idxmin()


def losses(frame: pd.DataFrame, rate: float) -> pd.DataFrame:
    """Returns how much worse than each p's own best rate another one is [p, seed]."""
    sign = 1 if measure_of(frame.dataset.iloc[0]).best == "highest" else -1

    def of_p(same: pd.DataFrame) -> pd.Series:
        shown = same.pivot_table("shown", "learning_rate", "seed", dropna=False)
        return sign * (shown.loc[best_rate(same)] - shown.loc[rate])

    return pd.DataFrame({p: of_p(same) for p, same in frame.groupby("p", sort=False)}).T


def contenders(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns what is judged on the test data: a row for each task and choice, with what it was chosen from.

    At unit RMS p and rate are one choice for all tasks: of p annealed from above 2, which is the
    recipe, of p = 2, and of all p. The others have the best for the task.
    """
    annealed, rms = frame[frame.p.str.contains("→")], frame[frame.method == RMS]
    rows = []
    for dataset in dict.fromkeys(frame.dataset):
        several = {
            "the recipe: {method}, p {p}": annealed[annealed.method == RMS],
            "{method}, p {p}": rms[rms.p == "2"],
            "{method}, p {p}, the best": rms,
            "{method} as published, p {p}": _of(annealed, dataset, PUBLISHED),
            **{name: _of(frame, dataset, name) for name in ("SGD with momentum", "AdamW")},
        }
        for name, among in several.items():
            if not among.empty:
                p, rate = best_for_all(among, ["p", "learning_rate"], "dataset")
                tried = len(among[["p", "learning_rate"]].drop_duplicates())
                method = among.method.iloc[0]
                row = (dataset, method, p, rate, name.format(method=method, p=p), tried)
                rows.append(dict(zip([*CHOICE, "name", "tried"], row, strict=True)))
    # The best of all p may be one of the two before.
    return pd.DataFrame(rows).drop_duplicates(CHOICE)


def _of(frame: pd.DataFrame, dataset: str, method: str) -> pd.DataFrame:
    return frame[(frame.dataset == dataset) & (frame.method == method)]


def recipe(frame: pd.DataFrame) -> tuple[str, float]:
    """Returns the p above 2, annealed, and the rate that are best for all tasks at unit RMS."""
    annealed = frame[(frame.method == RMS) & frame.p.str.contains("→")]
    p, rate = best_for_all(annealed, ["p", "learning_rate"], "dataset")
    return str(p), float(rate)


def page(frame: pd.DataFrame, tested: pd.DataFrame, titles: Mapping[str, str]) -> str:
    """Returns all tables, and how to read them."""
    parts = [
        part
        for dataset, of_task in frame.groupby("dataset", sort=False)
        for part in (f"## {titles[str(dataset)]}", rate_table(of_task))
    ]
    return "\n\n".join(
        [
            *parts,
            "The best learning rate of each p has the lowest mean NLL over the seeds, on validation data "
            "(≥ or ≤: it is at an end of those tried). It moves by the largest over the smallest. The one "
            "rate has the lowest mean ratio of the NLL to that of the best rates; what it loses is the "
            "difference in what is shown, which may be below 0: its mean over p, ± the standard deviation "
            "over seeds, and the most for one p. Rates are a factor of 3 apart and the seeds few: a move by "
            "that factor may be noise.",
            "## Unit RMS by p",
            p_table(frame[frame.method == RMS], recipe(frame)[1]),
            "## The recipe on test data",
            test_table(frame, tested),
            f"Mean ± standard deviation over {tested.seed.nunique()} seeds, which are others than those on "
            "validation data. At unit RMS p and the learning rate are one choice for all tasks, of the "
            "others they are chosen for each, from so many pairs. No optimizer has weight decay. Intervals "
            "are Welch's, not corrected for their number.",
        ]
    )


def rate_table(frame: pd.DataFrame) -> str:
    """Returns a line for each length of a step, at a constant p and with p annealed."""
    measure = measure_of(frame.dataset.iloc[0])
    lines = []
    for method, name in LENGTHS.items():
        same = frame[frame.method == method]
        for how, several in (
            ("constant", same[~same.p.str.contains("→")]),
            ("annealed to 2", same[same.p.str.fullmatch("(.* → )?2")]),
        ):
            if not several.empty:
                lines.append([name, how, *_rates_of(several, same.learning_rate)])
    losing = f"it loses, {measure.name}{', points' if measure is TOP1 else ''}"
    columns = ["step", "p", "best learning rate at each p", "moves by a factor of", "one rate"]
    return markdown_table([*columns, f"{losing}: mean", "most"], lines)


def _rates_of(frame: pd.DataFrame, tried: Sequence[float]) -> list[str]:
    best = {str(p): best_rate(same) for p, same in frame.groupby("p", sort=False)}
    one = best_for_all(frame, ["learning_rate"], "p")
    lost, spec = losses(frame, one), measure_of(frame.dataset.iloc[0]).spec
    at_least = "≥ " if any(is_at_an_end(rate, tried) for rate in best.values()) else ""
    return [
        ", ".join(f"{p.split(' ')[0]}: {_bounded(rate, tried)}" for p, rate in best.items()),
        f"{at_least}{max(best.values()) / min(best.values()):,.0f}",
        _bounded(one, tried),
        mean_std(lost.mean(axis=0, skipna=False), f"z{spec}"),
        f"{lost.mean(axis=1, skipna=False).max(skipna=False):z{spec}}",
    ]


def _bounded(rate: float, tried: Sequence[float]) -> str:
    """Returns the rate, marked if it is at an end of those tried."""
    if not is_at_an_end(rate, tried):
        return f"{rate:g}"
    return f"{'≤' if rate == min(tried) else '≥'} {rate:g}"


def p_table(frame: pd.DataFrame, rate: float) -> str:
    """Returns for each p what is reached at its best rate, and at one rate for all tasks."""
    rows: dict[str, dict[str, str]] = {}
    for (p, dataset), same in frame.groupby(["p", "dataset"], sort=False):
        measure = measure_of(dataset)
        for at, chosen in (("best rate", best_rate(same)), (f"at {rate:g}", rate)):
            heading = f"{dataset}, {measure.name}{measure.unit}, {at}"
            rows.setdefault(p, {"p": p})[heading] = _spread(same[same.learning_rate == chosen])
    return table_of(pd.DataFrame(rows.values()))


def _spread(same: pd.DataFrame) -> str:
    if diverged := int(same.shown.isna().sum()):
        return f"{diverged} of {len(same)} diverged"
    return mean_std(same.shown, measure_of(same.dataset.iloc[0]).spec)


def test_table(frame: pd.DataFrame, tested: pd.DataFrame) -> str:
    """Returns what the recipe and the others reach on the test data."""
    by_choice = dict(iter(tested.groupby(CHOICE, sort=False)))
    lines = []
    for dataset, chosen in contenders(frame).groupby("dataset", sort=False):
        measure = measure_of(str(dataset))
        first = by_choice[key(chosen.iloc[0])]
        for index, (_, row) in enumerate(chosen.iterrows()):
            seeds, of_method = by_choice[key(row)], frame[frame.method == row.method]
            versus = difference(measure, seeds.shown, first.shown) if index else ""
            rate = _bounded(row.learning_rate, of_method[of_method.dataset == dataset].learning_rate)
            what = f"{dataset}, {measure.name}{measure.unit}"
            lines.append([what, row["name"], str(row.tried), rate, _spread(seeds), versus])
    columns = ["task", "optimizer", "chosen from", "learning rate", "test", "minus the recipe (95 %)"]
    return markdown_table(columns, lines)


def means(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Returns means and standard deviations over the seeds, for each choice."""
    groups = frame.groupby(CHOICE, sort=False)
    found = groups.agg(
        seeds=("seed", "size"),
        **{
            f"{name}_{kind}": (name, lambda values, kind=kind: getattr(values, kind)(skipna=False))
            for name in ("held_out_nll", "held_out_top1")
            for kind in ("mean", "std")
        },
    ).reset_index()
    return [
        {name: f"{value:.5g}" if name.startswith("held_out") else value for name, value in row.items()}
        for row in found.to_dict("records")
    ]


def heat_maps(frame: pd.DataFrame, title: str) -> Figure:
    """Returns what is reached at each learning rate and p: a panel for each length of a step."""
    measure = measure_of(frame.dataset.iloc[0])
    frame = frame[frame.method.isin(LENGTHS)]
    several, rates = list(dict.fromkeys(frame.p)), sorted(set(frame.learning_rate), reverse=True)
    methods = [method for method in LENGTHS if method in set(frame.method)]
    grids = {
        method: frame[frame.method == method]
        .groupby(["learning_rate", "p"])
        .shown.agg(lambda values: values.to_numpy().mean())
        .fillna(math.inf)  # diverged.
        .unstack("p")
        .reindex(index=rates, columns=several)
        for method in methods
    }
    finite = np.concatenate([grid.to_numpy()[np.isfinite(grid)] for grid in grids.values()])
    highest = measure.best == "highest"
    best = finite.max() if highest else finite.min()
    low, high = sorted((best, best - SHOWN[measure.name] if highest else best + SHOWN[measure.name]))
    figure = Figure(figsize=(3 * len(methods) + 1, 1.8 + 0.27 * len(rates)), layout="constrained")
    axes = figure.subplots(1, len(methods), sharey=True, squeeze=False)[0]
    for axis, (method, grid) in zip(axes, grids.items(), strict=True):
        sns.heatmap(
            grid.replace(math.inf, math.nan),
            vmin=low,
            vmax=high,
            cmap="viridis" if highest else "viridis_r",
            annot=True,
            fmt=".1f" if measure is TOP1 else ".2f",
            annot_kws={"size": 6.5},
            cbar=False,
            xticklabels=[p.replace(" ", "") for p in several],
            yticklabels=[f"{rate:g}" for rate in rates],
            ax=axis,
        )
        for row, column in np.argwhere(np.isinf(grid.to_numpy())):
            axis.text(column + 0.5, row + 0.5, "diverged", ha="center", va="center", fontsize=4.5)
        for column, p in enumerate(several):
            row = rates.index(best_rate(frame[(frame.method == method) & (frame.p == p)]))
            axis.add_patch(Rectangle((column, row), 1, 1, fill=False, edgecolor="red", linewidth=1.6))
        axis.set_title(LENGTHS[method], fontsize="medium")
        axis.tick_params(labelsize="small", labelrotation=0)
        axis.set(xlabel="p", ylabel="learning rate" if axis is axes[0] else "")
    figure.colorbar(axes[0].collections[0], ax=axes, extend="min" if highest else "max", aspect=40)
    figure.suptitle(
        f"{title}: validation {measure.name}{measure.unit}, mean of {frame.seed.nunique()} seeds; "
        "framed: the best rate of each p, by NLL",
        fontsize="medium",
    )
    return figure
