"""The page of the suite."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pandas as pd
from flax import nnx

import benchmarks
from benchmarks.config.schedules import build_optimizer
from benchmarks.config.suite import Cell, Contestant, points, settings_of
from benchmarks.models.registry import build_model
from benchmarks.reporting.profiles import (
    LIMIT,
    NEVER,
    cost_of_step,
    integral,
    median_of,
    ratio_to,
    score,
)
from benchmarks.reporting.statistics import Measure, difference, mean_std, measure_of
from benchmarks.reporting.tables import table_of
from benchmarks.studies.suite_targets import Suite

STEP_TIMES = Path(benchmarks.__file__).parent / "results" / "step_time" / "step_time.csv"
# How long gradients take, in steps of AdamW.
CASES = {"bound by computation": 50.0, "bound by memory": 1.0}
REFERENCE = "AdamW"
OURS = re.compile("LPSGDM|STACEY|Schatten")
RUNS = {"No tuning": "seeds", "Tuned": "studies"}
# Pairs that differ in whose step it is, in p, or in how p is annealed.
PAIRS = (
    ("Schatten SGDM, p ∞", "AdamW"),
    ("Schatten SGDM, p ∞", "NAdamW"),
    ("Schatten SGDM, p ∞", "Muon"),
    ("Schatten SGDM, p 12", "Schatten SGDM, p ∞"),
    ("Schatten SGDM, p 12 → 2", "Schatten SGDM, p 12"),
    ("Schatten SGDM, p 12 → 2", "Schatten SGDM, p ∞"),
    ("LPSGDM at unit RMS, p 12 → 2", "AdamW"),
    ("LPSGDM, p 6 → 2", "AdamW"),
    ("STACEY(3,2)", "AdamW"),
)
EXPLANATION = (
    "The score is the mean of the profile, the share of workloads whose target is reached within a factor "
    f"of the best, over factors from 1 to {LIMIT:g}: 1 is best on all. Steps / {REFERENCE}'s is a geometric "
    "mean over workloads and runs; a target that is never reached counts as one budget, the least that it "
    f"can be, and in the next column as {NEVER:g}. Intervals of 95 % are a bootstrap's over workloads and "
    "runs; they take the choice of a trial as given. The state is in bytes for each parameter of a "
    "ResNet-8; Muon's is larger where embeddings are many, to which it applies AdamW."
)
EXPLANATION_OF_COSTS = (
    "Scores that count steps times what a training step costs with the optimizer, and in brackets that cost "
    "over AdamW's: by the study of the time of a step, on the parameters of its two networks, where "
    f"gradients take {CASES['bound by computation']:g} times as long as AdamW's step, or as long. Timed were "
    "p = 6 for any constant p of matrices, p from 6 to 2 for that which falls, and AdamW for NAdamW. The "
    "score does not charge for time where the others miss the target."
)


def step_costs(contestants: list[Contestant], share: float, times: pd.DataFrame) -> dict[str, float]:
    """Returns what a training step costs with each contestant, over AdamW's; nan where nothing was timed."""
    ratios = times.set_index("step")["/ AdamW"]
    return {one.name: cost_of_step(ratios.get(one.timed_as, np.nan), share) for one in contestants}


def state_bytes(contestant: Contestant, suite: Suite) -> float:
    """Returns the bytes of an optimizer's state for each parameter of a ResNet-8."""
    settings = settings_of(Cell(suite.workloads[0], contestant, 0, 0, "test"))
    network = nnx.eval_shape(lambda: build_model("resnet8", (14, 14, 1), 10))
    params = nnx.state(network, nnx.Param)
    state = jax.eval_shape(build_optimizer(settings, 1).init, params)
    sizes = [leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)]
    return sum(sizes) / sum(leaf.size for leaf in jax.tree.leaves(params))


def summary(suite: Suite, tested: pd.DataFrame) -> pd.DataFrame:
    """Returns a row for each contestant, the best first: what it is worth in a track."""
    times = median_of(tested)
    scores = score(tested).sort_values("value", ascending=False, kind="stable")
    names = list(scores.index)
    reached = np.isfinite(tested.time).groupby(tested.contestant)
    contestants = {one.name: one for one in suite.contestants}
    return pd.DataFrame(
        {
            "optimizer": names,
            "score": _with_intervals(scores),
            "targets reached": [f"{np.isfinite(times[name]).sum()} of {len(times)}" for name in names],
            "by runs": [f"{reached.sum()[name]} of {reached.size()[name]}" for name in names],
            f"steps / {REFERENCE}'s": _with_intervals(ratio_to(tested, REFERENCE, never=1).loc[names]),
            f"never = {NEVER:g} budgets": _with_intervals(ratio_to(tested, REFERENCE).loc[names]),
            "state": [f"{state_bytes(contestants[name], suite):.1f}" for name in names],
        }
    )


def _with_intervals(values: pd.DataFrame) -> list[str]:
    return [f"{row.value:.2f} ({row.low:.2f} to {row.high:.2f})" for row in values.itertuples()]


def costs_table(suite: Suite, tested: pd.DataFrame) -> pd.DataFrame:
    """Returns the scores of those contestants that were timed, if steps count with what they cost."""
    times, found = median_of(tested), {}
    for parameters, measured in pd.read_csv(STEP_TIMES).groupby("parameters", sort=False):
        for case, share in CASES.items():
            costs = pd.Series(step_costs(list(suite.contestants), share, measured))
            scores = integral(times[costs.dropna().index] * costs.dropna())
            text = scores.map("{:.2f}".format) + " (" + costs.map("{:.3g}".format) + ")"
            found[f"{parameters}, {case}"] = text.reindex(times.columns).fillna("not timed")
    return pd.DataFrame(found).rename_axis("optimizer").reset_index()


def times_table(tested: pd.DataFrame) -> pd.DataFrame:
    """Returns a row for each workload: the median time to the target, in per cent of the budget."""
    cells = (100 * median_of(tested)).map(lambda time: f"{time:.0f}" if np.isfinite(time) else "never")
    return cells.reset_index()


def chosen_table(tested: pd.DataFrame) -> pd.DataFrame:
    """Returns a row for each contestant: its learning rate and weight decay by workload, of one track."""
    first = tested.groupby(["contestant", "workload"], sort=False)[["learning_rate", "weight_decay"]].first()
    text = first.learning_rate.map("{:.3g}".format) + ", " + first.weight_decay.map("{:.2g}".format)
    return text.unstack("workload", sort=False).rename_axis("optimizer").reset_index()


def trials_table(trials: pd.DataFrame) -> pd.DataFrame:
    """Returns a row for each contestant: trials at the target, and where in its space the best rates lie."""
    best = trials.loc[trials.groupby(["contestant", "workload"], sort=False).loss.idxmin()]
    places = points(trials.trial.max() + 1)[best.trial, 0]
    # Where all diverged none is best.
    text = [
        f"{place:.2f}" if finite else "-" for place, finite in zip(places, best.loss < np.inf, strict=True)
    ]
    cells = best.assign(place=text).pivot(index="contestant", columns="workload", values="place")
    order = cells.reindex(index=trials.contestant.unique(), columns=trials.workload.unique())
    is_reached = trials.assign(is_reached=np.isfinite(trials.time))
    reached = is_reached.pivot_table("is_reached", "contestant", "trial", "sum").loc[order.index]
    shares = [f"{count} of {len(trials) // len(order)}" for count in reached.sum(axis=1)]
    order.insert(0, "trials at the target", shares)
    order.insert(
        1, "targets of one trial", [f"{most} of {len(order.columns) - 1}" for most in reached.max(axis=1)]
    )
    return order.rename_axis("optimizer").reset_index()


def results_table(suite: Suite, tested: pd.DataFrame) -> pd.DataFrame:
    """Returns a row for each contestant: how its runs ended, by workload."""

    def text(values: np.ndarray, measure: Measure) -> str:
        lost = int((~np.isfinite(values)).sum())
        return f"diverged, {lost} of {len(values)}" if lost else mean_std(values, measure.spec)

    found = {
        heading: {name: text(values, measure) for name, values in results.items()}
        for heading, measure, results in results_by_workload(suite, tested)
    }
    return pd.DataFrame(found).rename_axis("optimizer").reset_index()


def differences_table(suite: Suite, tested: pd.DataFrame) -> pd.DataFrame:
    """Returns a row for each pair: its ratio of steps, and the difference of its results by workload."""
    there = [pair for pair in PAIRS if set(pair) <= set(tested.contestant)]
    pairs = [(tested[tested.contestant.isin(pair)], *pair) for pair in there]
    found: dict[str, list[str]] = {"pair": [f"{name} against {other}" for name, other in there]}
    found["score"] = [_with_intervals(score(of_pair, other).loc[[name]])[0] for of_pair, name, other in pairs]
    ratios = [ratio_to(of_pair, other, never=1).loc[[name]] for of_pair, name, other in pairs]
    found["steps"] = [_with_intervals(ratio)[0] for ratio in ratios]
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


def trial_by_trial(suite: Suite, trials: pd.DataFrame) -> pd.DataFrame:
    """Returns a row for each pair with one search space: in how many trials its first ends better."""
    spaces = {one.name: one[3:5] for one in suite.contestants}
    losses = trials.pivot(index=["workload", "trial"], columns="contestant", values="loss")
    pairs = [pair for pair in PAIRS if set(pair) <= set(spaces) and spaces[pair[0]] == spaces[pair[1]]]
    rows = []
    for name, other in pairs:
        better = (losses[name] < losses[other]).groupby("workload", sort=False)
        counts = dict(zip(better.groups, map("{} of {}".format, better.sum(), better.size()), strict=True))
        row = {"pair": f"{name} against {other}", "all": f"{better.sum().sum()} of {better.size().sum()}"}
        rows.append(row | {workload.name: counts[workload.name] for workload in suite.workloads})
    return pd.DataFrame(rows)


def verdict(tested: pd.DataFrame) -> str:
    """Says who leads, and where the best of ours stands."""
    scores = integral(median_of(tested)).sort_values(ascending=False, kind="stable")
    ours = scores[[name for name in scores.index if OURS.search(name)]]
    place = 1 + int((scores > ours.iloc[0]).sum())
    return (
        f"First is {scores.index[0]} with a score of {scores.iloc[0]:.2f}; the best of ours is "
        f"{ours.index[0]} with {ours.iloc[0]:.2f}, in place {place} of {len(scores)}."
    )


def page(suite: Suite, targets: pd.DataFrame, trials: pd.DataFrame, tested: pd.DataFrame) -> str:
    """Returns the answers as Markdown."""
    untuned = tested[tested.track == "No tuning"]
    tracks = [_of_track(suite, there, str(track)) for track, there in tested.groupby("track")]
    parts = [
        *itertools.chain(*tracks),
        EXPLANATION,
        "## With the cost of a step, without tuning",
        table_of(costs_table(suite, untuned)),
        EXPLANATION_OF_COSTS,
        "## Results at the end, without tuning",
        table_of(results_table(suite, untuned)),
        f"On test data, mean ± standard deviation over {len(suite.seeds)} seeds.",
        "## Pairs: what the step, p and annealing are worth, without tuning",
        table_of(differences_table(suite, untuned)),
        "By how much the first's score exceeds the second's if there were no others, and the ratio of their "
        "steps, both with bootstrap intervals as above; then the 95 % intervals of Welch of the first's "
        "result less the second's, not corrected for their number: these compare two chosen trials, each "
        "with its rate and decay.",
        "Trials on validation data, at the same rate and decay, in which the first ended better:",
        table_of(trial_by_trial(suite, trials)),
        "## What was chosen without tuning: learning rate, weight decay",
        table_of(chosen_table(untuned)),
        "## Trials",
        table_of(trials_table(trials)),
        "How many of all trials reach the target on validation data; how many targets one rate and decay "
        "reach at most; and where in its space the learning rate of the best trial lies, by its last result "
        "there (0 is the lowest, 1 the highest).",
        "## Targets",
        table_of(targets.reset_index().round(5)),
    ]
    return "\n\n".join(parts)


def _of_track(suite: Suite, there: pd.DataFrame, track: str) -> list[str]:
    count = there.groupby(["workload", "contestant"]).size().max()
    return [
        f"## {track}",
        verdict(there),
        table_of(summary(suite, there)),
        f"Median time to the target over {count} {RUNS[track]}, in per cent of the budget:",
        table_of(times_table(there)),
    ]
