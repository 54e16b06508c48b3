"""Which runs can be compared with which, and what their differences are worth."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.config.labels import names, position, without_seed
from benchmarks.config.settings import Settings
from benchmarks.data.registry import objective_of
from benchmarks.reporting.statistics import difference, differs, frame_of, measure_of, scores
from benchmarks.training.records import FolderError, Run


class Workload:
    """What is compared: runs of one task, also those that have not finished."""

    def __init__(self, runs: Sequence[Run]) -> None:
        """Finds what is best."""
        self.runs, self.first, self.examples = runs, runs[0].settings, runs[0].examples
        self.task = _task(runs[0])
        self.settings = list(dict.fromkeys(without_seed(run.settings) for run in runs))
        self.measure = measure_of(self.first.dataset)
        self.frame = frame_of(run for run in runs if run.finished)
        # What is compared, for each seed, by setting.
        self.results: dict[Settings, np.ndarray] = {}
        if not self.frame.empty:
            last = self.frame[self.frame.epoch == self.first.epochs]
            groups = last.groupby("setting", sort=False)[self.measure.key]
            self.results = {setting: values.to_numpy() for setting, values in groups}
            several = last[last.duplicated("setting", keep=False)]
            self.has_seeds = several.setting.nunique() > 1  # so that there are two to compare.
            self.best = scores(several if self.has_seeds else last, "setting", self.measure).idxmin()

    def versus_best(self, setting: Settings) -> str:
        """Returns what may be told of the difference to the best, with 95 % confidence."""
        if setting == self.best:
            return "best"
        values = self.results[setting]
        return difference(self.measure, values, self.results[self.best]) if len(values) > 1 else "one seed"


def workloads(runs: Sequence[Run]) -> list[Workload]:
    """Returns the runs by what they are to be compared on, in the order in which optimizers are listed.

    Runs are left out whose records lack epochs, or what is reported of them.
    """
    found: dict[tuple[Any, ...], list[Run]] = {}
    for run in sorted(filter(_is_whole, runs), key=lambda run: position(run.settings)):
        found.setdefault(_task(run), []).append(run)
    if runs and not found:
        raise FolderError("there is nothing to report: all records lack epochs or losses")
    return list(map(Workload, found.values()))


def _task(run: Run) -> tuple[Any, ...]:
    of = run.settings
    return of.dataset, of.model, of.batch_size, of.epochs, of.held_out, *run.examples.values()


def _is_whole(run: Run) -> bool:
    needed = {"train_nll", f"held_out_{objective_of(run.settings.dataset).judged_by}"}
    numbers = [epoch["epoch"] for epoch in run.epochs if needed <= epoch.keys()]
    return numbers == list(range(1, run.done + 1))


def verdict(workload: Workload) -> str:
    """Returns who came first, and from whom that cannot be told apart."""
    results, measure, name_of = workload.results, workload.measure, names(workload.settings)
    if not results:
        return "No run has finished."
    among = " of several seeds" if workload.has_seeds and min(map(len, results.values())) < 2 else ""
    best = f"The {measure.best} {workload.first.held_out} {measure.name}{among} is that of"
    best += f" {name_of[workload.best]}."
    if len(results) < 2:
        return best
    if not workload.has_seeds:
        return f"{best} From single runs no difference can be told from noise."
    tied = [
        name_of[setting]
        for setting, values in results.items()
        if setting != workload.best and len(values) > 1 and not differs(values, results[workload.best])
    ]
    return f"{best} Within noise of it (95 % Welch interval): {', '.join(tied)}." if tied else best


def seeds(workload: Workload) -> str:
    """Says over how many seeds the figures are means, and whether some are missing."""
    counts = sorted({len(values) for values in workload.results.values()})
    if counts in ([], [1]):
        return "One seed"
    numbers = " to ".join(map(str, [counts[0], counts[-1]][: len(counts)]))
    return f"Mean ± standard deviation over {numbers} seeds"
