"""What is best of a grid of learning rates and p."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.data.registry import is_text
from benchmarks.reporting.comparison import NLL, TOP1, Measure
from benchmarks.studies.grid_training import Cell, Norm, Record, Task

Records = dict[Cell, Record]
MEASURED = ("held_out_nll", "held_out_top1")


def measure_of(task: Task) -> Measure:
    """Returns what is shown: of images the share of right answers, of text the likelihood."""
    return NLL if is_text(task.dataset) else TOP1


def at_rates(records: Records, method: str, norm: Norm) -> dict[float, list[Record]]:
    """Returns the records of the seeds by learning rate, which rises."""
    found: dict[float, list[Record]] = {}
    for cell in sorted(records, key=lambda cell: cell.learning_rate):
        if (cell.method, cell.norm) == (method, norm):
            found.setdefault(cell.learning_rate, []).append(records[cell])
    return found


def norms(records: Records, method: str) -> list[Norm]:
    """Returns the p that were tried with a method."""
    return list(dict.fromkeys(cell.norm for cell in records if cell.method == method))


def shown(task: Task, seeds: Sequence[Record]) -> list[float]:
    """Returns what is shown of each seed, nan of one that diverged, whatever it got right by chance."""
    measure = measure_of(task)
    return [measure.at(record) if math.isfinite(record["held_out_nll"]) else math.nan for record in seeds]


def _nll(seeds: Sequence[Record]) -> float:
    """Returns the mean NLL, infinite if a run diverged."""
    mean = float(np.mean([record["held_out_nll"] for record in seeds]))
    return mean if math.isfinite(mean) else math.inf


def best_rate(records: Records, method: str, norm: Norm) -> float:
    """Returns the learning rate with the lowest mean NLL."""
    found = at_rates(records, method, norm)
    return min(found, key=lambda rate: _nll(found[rate]))


def is_at_an_end(records: Records, method: str, rate: float) -> bool:
    """Says whether no lower, or no higher, rate was tried with a method."""
    tried = [cell.learning_rate for cell in records if cell.method == method]
    return rate in (min(tried), max(tried))


def best_of_all(tasks: Sequence[Records], method: str, several: Sequence[Norm]) -> tuple[Norm, float]:
    """Returns the p and the rate with the lowest mean ratio of the NLL to the lowest of each task."""
    ratios = []
    for records in tasks:
        by_cell = {
            (norm, rate): _nll(seeds)
            for norm in several
            for rate, seeds in at_rates(records, method, norm).items()
        }
        least = min(by_cell.values())
        ratios.append({cell: value / least if value < math.inf else value for cell, value in by_cell.items()})
    return min(ratios[0], key=lambda cell: sum(of_task[cell] for of_task in ratios))


def shared_rate(records: Records, method: str, several: Sequence[Norm]) -> float:
    """Returns the one rate that is best for several p: that of the lowest mean ratio of the NLL."""
    by_norm = [{cell: record for cell, record in records.items() if cell.norm == norm} for norm in several]
    same = [{cell._replace(norm=several[0]): record for cell, record in of.items()} for of in by_norm]
    return best_of_all(same, method, several[:1])[1]


def losses(task: Task, records: Records, method: str, several: Sequence[Norm], rate: float) -> np.ndarray:
    """Returns how much worse than each p's own best rate another one is [p, seed]."""
    sign = 1 if measure_of(task).best == "highest" else -1
    found = []
    for norm in several:
        by_rate = at_rates(records, method, norm)
        own, other = (by_rate[chosen] for chosen in (best_rate(records, method, norm), rate))
        found.append(sign * (np.array(shown(task, own)) - np.array(shown(task, other))))
    return np.array(found)


def annealed(records: Records, method: str) -> list[Norm]:
    """Returns the p that fall to 2 from above."""
    return [norm for norm in norms(records, method) if norm.first > norm.last]


def recipe(tasks: Sequence[Records]) -> tuple[Norm, float]:
    """Returns the p_max above 2 and the rate that are best for all tasks at unit RMS."""
    return best_of_all(tasks, "rms", annealed(tasks[0], "rms"))


class Contender(NamedTuple):
    """What is judged on test data, with the number of p and rates that it was chosen from."""

    name: str
    cell: Cell
    candidates: int


def contenders(tasks: Sequence[Records], records: Records) -> list[Contender]:
    """Returns what is judged on the test data of one of the tasks.

    At unit RMS p and rate are one choice for all tasks: of p annealed from above 2, which is the
    recipe, of p = 2, and of all p. The others have the best for the task.
    """

    def chosen(name: str, of: Sequence[Records], method: str, several: Sequence[Norm]) -> Contender:
        norm, rate = best_of_all(of, method, several)
        tried = sum(len(at_rates(records, method, norm)) for norm in several)
        return Contender(name.format(norm.label), Cell(method, norm, rate, 0), tried)

    unit = "LPSGDM at unit RMS, p {}"
    found = [
        chosen(f"the recipe: {unit}", tasks, "rms", annealed(records, "rms")),
        chosen(unit, tasks, "rms", [Norm(2.0, 2.0)]),
        chosen(f"{unit}, the best", tasks, "rms", norms(records, "rms")),
    ]
    names = {"none": "LPSGDM as published, p {}", "sgdm": "SGD with momentum", "adamw": "AdamW"}
    for method, name in names.items():
        of_method = annealed(records, method) or norms(records, method)
        if of_method:
            found.append(chosen(name, [records], method, of_method))
    cells = [contender.cell for contender in found]
    # The best of all p may be one of the two before.
    return [contender for index, contender in enumerate(found) if contender.cell not in cells[:index]]
