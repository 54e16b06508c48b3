"""The page and the figures of the suite."""

from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import seaborn as sns
from flax import nnx
from matplotlib.figure import Figure

import benchmarks
from benchmarks.config.schedules import build_optimizer
from benchmarks.config.suite import Cell, Contestant, settings_of
from benchmarks.models.registry import build_model
from benchmarks.reporting.figures import COLORS
from benchmarks.reporting.profiles import (
    LIMIT,
    NEVER,
    cost_of_step,
    integral,
    median_of,
    profile,
    ratio_to,
)
from benchmarks.reporting.statistics import Measure, difference, mean_std, measure_of
from benchmarks.reporting.tables import table_of
from benchmarks.studies.suite_targets import Suite

STEP_TIMES = Path(benchmarks.__file__).parent / "results" / "step_time" / "step_time.csv"
# How long gradients take, in steps of AdamW.
CASES = {"bound by computation": 50.0, "bound by memory": 1.0}
REFERENCE = "AdamW"
DRAWN = {"AdamW": "--", "Muon": ":"}  # whose profiles are named beside ours.
OURS = "LPSGDM|STACEY|Schatten"
# Pairs that differ in p, in how it is annealed, or in whose step it is.
PAIRS = (
    ("Schatten SGDM, p ∞", "Muon"),
    ("Schatten SGDM, p 12", "Schatten SGDM, p ∞"),
    ("Schatten SGDM, p 12 → 2", "Schatten SGDM, p 12"),
    ("Schatten SGDM, p 12 → 2", "Schatten SGDM, p ∞"),
    ("LPSGDM at unit RMS, p 12 → 2", "AdamW"),
)
EXPLANATION = (
    "The score is the mean of the profile, the share of workloads whose target is reached within a factor "
    f"of the best, over factors from 1 to {LIMIT:g}: 1 is best on all. Steps / {REFERENCE}'s is a geometric "
    f"mean over workloads and runs; a target that is never reached counts as {NEVER:g} budgets, and in the "
    "next column as one, the least that it can be. The 95 % intervals are a bootstrap's over workloads and "
    "runs. The last scores count steps times what a training step costs, from the mean over the networks of "
    "the study of the time of a step, where gradients take "
    f"{CASES['bound by computation']:g} times as long as AdamW's step, or as long. The state is that of a "
    "parameter of the first workload; Muon's is larger where embeddings are many, to which it applies AdamW."
)


def step_costs(contestants: list[Contestant], share: float, times: pd.DataFrame) -> dict[str, float]:
    """Returns what a training step costs with each contestant, relative to AdamW."""
    ratios = np.exp(np.log(times.set_index("step")["/ AdamW"]).groupby("step").mean())
    return {one.name: cost_of_step(float(ratios[one.timed_as]), share) for one in contestants}


def state_bytes(suite: Suite, contestant: Contestant) -> float:
    """Returns the bytes of an optimizer's state for each parameter of the first workload's network."""
    workload = suite.workloads[0]
    settings = settings_of(Cell(workload, contestant, 0, 0, "test"))
    network = nnx.eval_shape(lambda: build_model(workload.model, (14, 14, 1), 10))
    params = nnx.state(network, nnx.Param)
    state = jax.eval_shape(build_optimizer(settings, 1).init, params)
    sizes = [leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)]
    return sum(sizes) / sum(leaf.size for leaf in jax.tree.leaves(params))


def summary(suite: Suite, tested: pd.DataFrame) -> pd.DataFrame:
    """Returns a row for each contestant, the best first: what it is worth in a track."""
    times = median_of(tested)
    ratios, careful = ratio_to(tested, REFERENCE), ratio_to(tested, REFERENCE, never=1)
    table = pd.DataFrame(
        {
            "optimizer": times.columns,
            "score": integral(times),
            "targets reached": np.isfinite(times).sum().map(f"{{}} of {len(times)}".format),
            f"steps / {REFERENCE}'s": _with_intervals(ratios.loc[times.columns]),
            "the same, never = 1 budget": _with_intervals(careful.loc[times.columns]),
        }
    )
    measured = pd.read_csv(STEP_TIMES)
    for case, share in CASES.items():
        costs = pd.Series(step_costs(list(suite.contestants), share, measured))
        table[f"score, {case}"] = integral(times * costs).map("{:.2f}".format)
    names = {one.name: one for one in suite.contestants}
    table["state, bytes"] = [f"{state_bytes(suite, names[name]):.1f}" for name in times.columns]
    ranked = table.sort_values("score", ascending=False, kind="stable")
    return ranked.assign(score=ranked.score.map("{:.2f}".format))


def _with_intervals(ratios: pd.DataFrame) -> list[str]:
    return [f"{row.ratio:.2f} ({row.low:.2f} to {row.high:.2f})" for row in ratios.itertuples()]


def times_table(tested: pd.DataFrame) -> pd.DataFrame:
    """Returns a row for each workload: the median time to the target, in per cent of the budget."""
    cells = (100 * median_of(tested)).map(lambda time: f"{time:.0f}" if np.isfinite(time) else "never")
    return cells.reset_index()


def results_table(suite: Suite, tested: pd.DataFrame) -> pd.DataFrame:
    """Returns a row for each contestant: how its runs ended, by workload."""
    found = {
        heading: {name: mean_std(values, measure.spec) for name, values in results.items()}
        for heading, measure, results in results_by_workload(suite, tested)
    }
    return pd.DataFrame(found).rename_axis("optimizer").reset_index()


def differences_table(suite: Suite, tested: pd.DataFrame) -> pd.DataFrame:
    """Returns a row for each pair: its ratio of steps, and the difference of its results by workload."""
    there = [pair for pair in PAIRS if set(pair) <= set(tested.contestant)]
    found: dict[str, list[str]] = {"pair": [f"{name} against {other}" for name, other in there]}
    found["steps"] = [_with_intervals(ratio_to(tested, b).loc[[a]])[0] for a, b in there]
    for heading, measure, results in results_by_workload(suite, tested):
        found[heading] = [difference(measure, results[name], results[other]) for name, other in there]
    return pd.DataFrame(found)


def results_by_workload(
    suite: Suite, tested: pd.DataFrame
) -> Iterator[tuple[str, Measure, dict[str, np.ndarray]]]:
    """Yields a heading for each workload, what it is judged by, and the last results by contestant."""
    for workload in suite.workloads:
        measure = measure_of(workload.dataset)
        per_cent = 100 if measure.unit else 1
        there = tested[tested.workload == workload.name].groupby("contestant", sort=False).result
        heading = f"{workload.name}: {measure.name}{measure.unit.replace(' ', ', ')}"
        yield heading, measure, {str(name): per_cent * values.to_numpy() for name, values in there}


def never(tested: pd.DataFrame) -> str:
    """Says which contestants miss which targets."""
    times = median_of(tested)
    missed = [
        f"{name} on {', '.join(times.index[np.isinf(times[name])])}"
        for name in times
        if np.isinf(times[name]).any()
    ]
    return f"Never reached, in the median: {'; '.join(missed)}." if missed else "All targets were reached."


def verdict(tested: pd.DataFrame) -> str:
    """Says who leads, and where the best of ours stands."""
    scores = integral(median_of(tested)).sort_values(ascending=False, kind="stable")
    ours = scores[scores.index.str.contains(OURS)]
    place = 1 + int((scores > ours.iloc[0]).sum())
    return (
        f"First is {scores.index[0]} with a score of {scores.iloc[0]:.2f}; the best of ours is "
        f"{ours.index[0]} with {ours.iloc[0]:.2f}, in place {place} of {len(scores)}."
    )


def page(suite: Suite, targets: pd.DataFrame, tested: pd.DataFrame) -> str:
    """Returns the answers as Markdown."""
    parts = []
    for track, there in tested.groupby("track", sort=False):
        count = len(suite.seeds) if track == "No tuning" else len(suite.study_seeds)
        runs = "seeds" if track == "No tuning" else "studies"
        parts += [
            f"## {track}",
            verdict(there),
            table_of(summary(suite, there)),
            f"Median time to the target over {count} {runs}, in per cent of the budget:",
            table_of(times_table(there)),
            never(there),
        ]
    untuned = tested[tested.track == "No tuning"]
    return "\n\n".join(
        [
            *parts,
            EXPLANATION,
            "## Results at the end, without tuning",
            table_of(results_table(suite, untuned)),
            f"On test data, mean ± standard deviation over {len(suite.seeds)} seeds.",
            "## What p and annealing are worth, without tuning",
            table_of(differences_table(suite, untuned)),
            "Steps are ratios, with the intervals from above; the others are the 95 % intervals of Welch of "
            "the first's result less the second's, not corrected for their number.",
            "## Targets",
            table_of(targets.reset_index()),
        ]
    )


def draw(tested: pd.DataFrame, track: str) -> Figure:
    """Returns the profiles, and the time to each target as a map; the best contestant stands first."""
    times = median_of(tested)
    scores = integral(times).sort_values(ascending=False, kind="stable")
    figure = Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    factors = np.geomspace(1, LIMIT, 400)
    shares = profile(times, factors)
    colors = iter(COLORS)
    for name in scores.index:
        ours = bool(pd.Series([name]).str.contains(OURS).item())
        style = {"color": next(colors), "linewidth": 2} if ours else {"linewidth": 1, "color": "silver"}
        if name in DRAWN:
            style |= {"color": "black", "linestyle": DRAWN[name], "linewidth": 2}
        label = name if ours or name in DRAWN else None
        left.step(factors, shares[name], where="post", label=label, **style)
    left.set(xscale="log", ylim=(0, 1.02), xlim=(1, LIMIT))
    left.set(xlabel="steps / fewest of all", ylabel="share of workloads whose target is reached")
    left.set_xticks([1, 1.5, 2, 3, 4], ["1", "1.5", "2", "3", "4"], minor=False)
    left.set_xticks([], minor=True)
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "ncols": 2}
    left.legend(fontsize="small", title="grey: the others", **below)
    cells = (100 * times[scores.index]).T
    cells.index = [f"{name}  {score:.2f}" for name, score in scores.items()]
    shown = cells.where(np.isfinite(cells))
    text = shown.map("{:.0f}".format).replace("nan", "-")
    options = {"cmap": "viridis_r", "vmin": 25, "vmax": 100, "linewidths": 1, "cbar": False}
    sns.heatmap(shown, annot=text.to_numpy(), fmt="", ax=right, **options)
    for x, y in np.argwhere(shown.isna().to_numpy())[:, ::-1]:
        right.text(x + 0.5, y + 0.5, "never", ha="center", va="center", fontsize="small", color="0.4")
    right.set(title="time to the target, % of the budget; scores beside the names", xlabel="", ylabel="")
    right.tick_params(axis="x", rotation=40)
    for tick in right.get_xticklabels():
        tick.set_horizontalalignment("right")
    figure.suptitle(track)
    return figure
