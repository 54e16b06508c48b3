"""What the results of `benchmarks.studies.learning_rates` say: tables, and heat maps."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from benchmarks.reporting.comparison import NLL, TOP1, Measure, difference
from benchmarks.reporting.tables import markdown_table
from benchmarks.studies.grid_selection import (
    MEASURED,
    Records,
    at_rates,
    best_rate,
    contenders,
    is_at_an_end,
    losses,
    measure_of,
    norms,
    recipe,
    shared_rate,
    shown,
)
from benchmarks.studies.grid_training import Cell, Norm, Record, Task

LENGTHS = {"none": "as published", "dual_norm": "dual norm", "rms": "unit RMS"}  # by method.
SHOWN = {TOP1: 20.0, NLL: 1.5}  # how far below the best the colors reach.


def page(results: Mapping[Task, Records], tested: Mapping[Task, Records]) -> str:
    """Returns all tables, and how to read them."""
    _, recipe_rate = recipe(list(results.values()))
    parts = [
        part
        for task, records in results.items()
        for part in (f"## {_title(task)}", rate_table(task, records))
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
            p_table(results, recipe_rate),
            "## The recipe on test data",
            test_table(results, tested),
            _seeds_text(tested),
        ]
    )


def _title(task: Task) -> str:
    return f"{task.model} on {task.dataset}"


def rate_table(task: Task, records: Records) -> str:
    """Returns a line for each length of a step, at a constant p and with p annealed."""
    measure = measure_of(task)
    lines = []
    for method, name in LENGTHS.items():
        of_method = norms(records, method)
        constant = [norm for norm in of_method if norm.first == norm.last]
        annealed = [norm for norm in of_method if norm.last == 2]
        for how, several in (("constant", constant), ("annealed to 2", annealed)):
            if several:
                lines.append([name, how, *_rates_of(task, records, method, several)])
    losing = f"it loses, {measure.name}{', points' if measure is TOP1 else ''}"
    columns = ["step", "p", "best learning rate at each p", "moves by a factor of", "one rate"]
    return markdown_table([*columns, f"{losing}: mean", "most"], lines)


def _rates_of(task: Task, records: Records, method: str, several: Sequence[Norm]) -> list[str]:
    best = {norm: best_rate(records, method, norm) for norm in several}
    one = shared_rate(records, method, several)
    lost = losses(task, records, method, several, one)
    spec = measure_of(task).spec
    at_least = "≥ " if any(is_at_an_end(records, method, rate) for rate in best.values()) else ""
    by_seed = lost.mean(axis=0)
    spread = f" ± {by_seed.std(ddof=1):{spec}}" if len(by_seed) > 1 else ""
    return [
        ", ".join(f"{_p(norm.first)}: {_bounded(rate, records, method)}" for norm, rate in best.items()),
        f"{at_least}{max(best.values()) / min(best.values()):,.0f}",
        _bounded(one, records, method),
        f"{by_seed.mean():z{spec}}{spread}",
        f"{lost.mean(axis=1).max():z{spec}}",
    ]


def _p(p: float) -> str:
    return "∞" if math.isinf(p) else f"{p:g}"


def _bounded(rate: float, records: Records, method: str) -> str:
    """Returns the rate, marked if it is at an end of those tried."""
    if not is_at_an_end(records, method, rate):
        return f"{rate:g}"
    tried = [cell.learning_rate for cell in records if cell.method == method]
    return f"{'≤' if rate == min(tried) else '≥'} {rate:g}"


def p_table(results: Mapping[Task, Records], rate: float) -> str:
    """Returns for each p what is reached at its best rate, and at one rate for all tasks."""
    several = list(dict.fromkeys(norm for records in results.values() for norm in norms(records, "rms")))
    lines = []
    for norm in several:
        cells = []
        for task, records in results.items():
            found = at_rates(records, "rms", norm)
            cells += [_spread(task, found[chosen]) for chosen in (best_rate(records, "rms", norm), rate)]
        lines.append([norm.label, *cells])
    heads = [
        f"{task.dataset}, {measure_of(task).name}{measure_of(task).unit}, {at}"
        for task in results
        for at in ("best rate", f"at {rate:g}")
    ]
    return markdown_table(["p", *heads], lines)


def _spread(task: Task, seeds: Sequence[Record]) -> str:
    measure = measure_of(task)
    values = shown(task, seeds)
    if not np.isfinite(values).all():
        return f"{np.sum(~np.isfinite(values))} of {len(values)} diverged"
    text = f"{np.mean(values):{measure.spec}}"
    return f"{text} ± {np.std(values, ddof=1):{measure.spec}}" if len(values) > 1 else text


def test_table(results: Mapping[Task, Records], tested: Mapping[Task, Records]) -> str:
    """Returns what the recipe and the others reach on the test data."""
    lines = []
    for task, records in tested.items():
        measure = measure_of(task)
        several = contenders(list(results.values()), results[task])
        first = None
        for name, cell, candidates in several:
            seeds = [record for other, record in records.items() if other._replace(seed=0) == cell]
            values = shown(task, seeds)
            versus = "" if first is None else difference(measure, values, first)
            first = values if first is None else first
            rate = _bounded(cell.learning_rate, results[task], cell.method)
            what = f"{task.dataset}, {measure.name}{measure.unit}"
            lines.append([what, name, str(candidates), rate, _spread(task, seeds), versus])
    columns = ["task", "optimizer", "chosen from", "learning rate", "test", "minus the recipe (95 %)"]
    return markdown_table(columns, lines)


def _seeds_text(tested: Mapping[Task, Records]) -> str:
    seeds = {cell.seed for records in tested.values() for cell in records}
    return (
        f"Mean ± standard deviation over {len(seeds)} seeds, which are others than those on validation data. "
        "At unit RMS p and the learning rate are one choice for all tasks, of the others they are chosen for "
        "each, from so many pairs. No optimizer has weight decay. Intervals are Welch's, not corrected for "
        "their number."
    )


def rows(task: Task, records: Records) -> list[dict[str, object]]:
    """Returns the means over the seeds, for each method, p and rate."""
    found: dict[Cell, list[Record]] = {}
    for cell, record in records.items():
        found.setdefault(cell._replace(seed=0), []).append(record)
    return [
        {
            "dataset": task.dataset,
            "method": cell.method,
            "p_first": cell.norm.first,
            "p_last": cell.norm.last,
            "learning_rate": cell.learning_rate,
            "seeds": len(seeds),
            **{
                f"{name}_{kind}": f"{statistic([record[name] for record in seeds]):.5g}"
                for name in MEASURED
                for kind, statistic in (("mean", np.mean), ("std", _std))
            },
        }
        for cell, seeds in found.items()
    ]


def _std(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def heat_maps(task: Task, records: Records) -> Figure:
    """Returns what is reached at each learning rate and p: a panel for each length of a step."""
    measure = measure_of(task)
    methods = [method for method in LENGTHS if norms(records, method)]
    several = norms(records, methods[0])
    rates = sorted({cell.learning_rate for cell in records if cell.method in methods})
    values = {method: _values(task, records, method, several, rates) for method in methods}
    finite = [value for array in values.values() for value in array[np.isfinite(array)]]
    best = max(finite) if measure.best == "highest" else min(finite)
    figure = Figure(figsize=(3 * len(methods) + 1, 1.8 + 0.27 * len(rates)), layout="constrained")
    axes = figure.subplots(1, len(methods), sharey=True, squeeze=False)[0]
    limits = sorted((best, best - SHOWN[measure] if measure.best == "highest" else best + SHOWN[measure]))
    colors = "viridis" if measure.best == "highest" else "viridis_r"
    for axis, (method, array) in zip(axes, values.items(), strict=True):
        shown = np.where(np.isinf(array), np.nan, array)
        image = axis.imshow(shown, aspect="auto", origin="lower", cmap=colors, vmin=limits[0], vmax=limits[1])
        _annotate(axis, array, measure, limits)
        for column, norm in enumerate(several):
            row = rates.index(best_rate(records, method, norm))
            axis.add_patch(_frame(column, row))
        axis.set_title(LENGTHS[method], fontsize="medium")
        axis.set_xticks(
            range(len(several)), [norm.label.replace(" ", "") for norm in several], fontsize="small"
        )
        axis.set_yticks(range(len(rates)), [f"{rate:g}" for rate in rates], fontsize="small")
        axis.set_xlabel("p")
    axes[0].set_ylabel("learning rate")
    seeds = len({cell.seed for cell in records})
    figure.colorbar(image, ax=axes, extend="min" if measure.best == "highest" else "max", aspect=40)
    figure.suptitle(
        f"{_title(task)}: validation {measure.name}{measure.unit}, mean of {seeds} seeds; "
        "framed: the best rate of each p, by NLL",
        fontsize="medium",
    )
    return figure


def _values(
    task: Task, records: Records, method: str, several: Sequence[Norm], rates: Sequence[float]
) -> np.ndarray:
    """Returns means over the seeds [rates, p]; infinite where a run diverged, nan where nothing was tried."""
    found = np.full((len(rates), len(several)), np.nan)
    for column, norm in enumerate(several):
        for rate, seeds in at_rates(records, method, norm).items():
            diverged = any(math.isnan(record["held_out_nll"]) for record in seeds)
            found[rates.index(rate), column] = math.inf if diverged else np.mean(shown(task, seeds))
    return found


def _annotate(axis: Any, values: np.ndarray, measure: Measure, limits: Sequence[float]) -> None:
    for (row, column), value in np.ndenumerate(values):
        if np.isinf(value):
            axis.text(column, row, "diverged", ha="center", va="center", fontsize=4.5)
        elif np.isfinite(value):
            share = (value - limits[0]) / (limits[1] - limits[0])
            is_dark = (share if measure.best == "highest" else 1 - share) < 0.5
            digits = 1 if measure is TOP1 else 2
            color = "white" if is_dark else "black"
            axis.text(column, row, f"{value:.{digits}f}", ha="center", va="center", fontsize=6.5, color=color)


def _frame(column: int, row: int) -> Rectangle:
    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="red", linewidth=1.6)
