"""One learning rate for every p: how far the best one moves with p, by how long a step is made.

Question: the length of LPSGDM's step depends on p, so that each p has a learning rate of its own. Does
one serve all if the step has the factor of the dual norm, or unit root mean square?

Setting: LPSGDM at a constant p and with p annealed every step from p_max to 2, each with three lengths
of a step: as published, times the factor of the dual norm (LPSGDM paper, eq. 10), and at unit RMS over
the whole tree. A ResNet-8 on 900 of the digits, for 10 epochs; one on 6,400 images of Fashion-MNIST
reduced to 14 x 14, for 4; a small Llama on 1,536 sequences of Python's standard library, for 1. The
learning rate warms up for a twentieth of the steps and decays along a cosine; no weight decay; three
seeds. The best rate has the lowest mean NLL on validation data. SGD with momentum and AdamW have rates
of their own, as many as LPSGDM as published has at one p.

The recipe is the p_max and the rate, of unit RMS, with the lowest mean ratio of the NLL to the best of its
task: one choice for all tasks. It is trained with five more seeds and judged on the test data, beside p = 2
and, if that is another, the best p of all at unit RMS, chosen alike; and beside LPSGDM as published, SGD with
momentum and AdamW with what is best for the task.

    python -m benchmarks learning_rates --output benchmarks/results/learning_rates

continues where it was interrupted, run by run. Several such jobs share the work.

Result (Python 3.11.7, JAX 0.10.2, a core for each of two jobs, n = 3): with p the best rate moves by a factor
of 100 to more than 3000 as published, by 3000 to more than 300,000 with the dual norm, and by 1 to 10 at unit
RMS, where one rate loses 0.00 to 0.24 points of accuracy and 0.008 to 0.023 nats in the mean over p. The
recipe is p from 12 to 2 at 0.001. On test data (n = 5) it cannot be told from AdamW tuned for each task.
"""

import itertools
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.data.registry import HeldOut
from benchmarks.reporting.figures import write_figure
from benchmarks.reporting.tables import write_csv
from benchmarks.studies import learning_rates_report as report
from benchmarks.studies.grid_selection import MEASURED, Records, contenders
from benchmarks.studies.grid_training import Cell, Norm, Record, Task, train
from benchmarks.training.records import (
    PACKAGES,
    FolderError,
    ResultsFolder,
    difference,
    environment,
    measured_with,
)

ANY = (Norm(2.0, 2.0),)  # of an optimizer that takes no p.
CONSTANT = tuple(Norm(p, p) for p in (2.0, 3.0, 6.0, math.inf))
COSINE = tuple(Norm(p_max, 2.0) for p_max in (2.0, 6.0, 12.0))
BOTH = tuple(dict.fromkeys(CONSTANT + COSINE))


class Grid(NamedTuple):
    """What is tried with a method: every rate with every p."""

    norms: tuple[Norm, ...]
    learning_rates: tuple[float, ...]


class Study(NamedTuple):
    """All that is trained."""

    tasks: tuple[Task, ...]
    grids: Mapping[str, Grid]  # by method.
    seeds: Sequence[int]
    test_seeds: Sequence[int]


def rates(lowest: float, highest: float) -> tuple[float, ...]:
    """Returns 1, 3, 10, 30, ... within these bounds."""
    tried = (float(f"{digit}e{exponent}") for exponent in range(-9, 3) for digit in (1, 3))
    return tuple(rate for rate in tried if lowest <= rate <= highest)


FULL = Study(
    (
        Task("digits", "resnet8", 50, 10, 900, 300),
        Task("fashion_mnist", "resnet8_stride2", 128, 4, 6_400, 2_000, halved=True),
        Task("stdlib", "llama_small", 8, 1, 1_536, 256),
    ),
    {
        "none": Grid(BOTH, rates(3e-4, 3)),
        "dual_norm": Grid(BOTH, rates(1e-6, 3)),
        "rms": Grid(BOTH, rates(1e-4, 0.1)),
        "sgdm": Grid(ANY, rates(3e-4, 3)),
        "adamw": Grid(ANY, rates(1e-4, 1)),
    },
    seeds=range(3),
    test_seeds=range(3, 8),
)
QUICK = Study(
    (Task("digits", "resnet4", 48, 1, 96, 48),),
    {
        "none": Grid((CONSTANT[0], COSINE[1]), (0.1, 1.0)),
        "rms": Grid((CONSTANT[0], COSINE[1]), (0.003, 0.01)),
        "sgdm": Grid(ANY, (0.1,)),
    },
    seeds=range(1),
    test_seeds=range(1, 3),
)


class Part(NamedTuple):
    """Runs that are done by one job, and recorded in one file."""

    name: str
    task: Task
    held_out: HeldOut
    cells: tuple[Cell, ...]


def validation_parts(study: Study) -> Iterator[Part]:
    """Yields the runs that are judged on validation data: a part for each task, method and seed."""
    for task, (method, of_method), seed in itertools.product(study.tasks, study.grids.items(), study.seeds):
        pairs = itertools.product(of_method.norms, of_method.learning_rates)
        cells = tuple(Cell(method, norm, rate, seed) for norm, rate in pairs)
        yield Part(f"{task.dataset}-{method}-seed{seed}", task, "validation", cells)


def test_parts(study: Study, results: Mapping[Task, Records]) -> Iterator[Part]:
    """Yields the runs that are judged on test data: a part for each task."""
    for task, records in results.items():
        several = contenders(list(results.values()), records)
        cells = tuple(
            contender.cell._replace(seed=seed) for seed in study.test_seeds for contender in several
        )
        yield Part(f"{task.dataset}-test", task, "test", cells)


def complete(parts: Sequence[Part], folder: ResultsFolder) -> dict[Part, Records]:
    """Does what the folder lacks and no other job is about; returns all when it is there."""
    for part in parts:
        _known(part, folder)  # refused before hours are spent.
    for wait in (False, True):
        for part in parts:
            with folder.lock(part.name, wait=wait) as ours:
                if ours:
                    _finish(part, folder)
    return {part: _known(part, folder) for part in parts}


def _finish(part: Part, folder: ResultsFolder) -> None:
    known = _known(part, folder)
    missing = part.cells[len(known) :]
    if not missing:
        return
    print(f"{part.name}: {len(missing)} runs", file=sys.stderr)
    for cell, record in zip(missing, train(part.task, missing, part.held_out), strict=True):
        known[cell] = record
        lines = [_header(part), *({**_plain(cell), **_without_nan(record)} for cell, record in known.items())]
        text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
        folder.write_text(_file(part, folder).name, text)


def _file(part: Part, folder: ResultsFolder) -> Path:
    return folder.path / f"{part.name}.jsonl"


def _header(part: Part) -> dict[str, Any]:
    return {"task": part.task._asdict(), "held_out": part.held_out, "environment": environment()}


def _plain(cell: Cell) -> dict[str, Any]:
    p = ["inf" if math.isinf(p) else p for p in cell.norm]
    return {"method": cell.method, "p": p, "learning_rate": cell.learning_rate, "seed": cell.seed}


def _without_nan(record: Record) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in record.items()}


def _known(part: Part, folder: ResultsFolder) -> Records:
    """Returns the records of the first of a part's runs; refuses those of another plan, or other versions."""
    file = _file(part, folder)
    if not file.exists():
        return {}
    try:
        header, *lines = _read(file)
        records = [
            {name: math.nan if (value := line.pop(name)) is None else float(value) for name in MEASURED}
            for line in lines
        ]
        there = {**header["task"], "held_out": header["held_out"]}
        versions = _versions(header["environment"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _damaged(file) from error
    other = difference({**part.task._asdict(), "held_out": part.held_out}, there)
    planned = [_plain(cell) for cell in part.cells]
    if other is None and lines != planned[: len(lines)]:
        other = "its runs are others"
    if other is None and len(lines) < len(planned):
        other = difference(_versions(environment()), versions)
    if other:
        raise FolderError(f"{file} does not belong to this study: {other}; name another folder")
    return dict(zip(part.cells, records, strict=False))


def _read(file: Path) -> list[Any]:
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise _damaged(file) from error


def _damaged(file: Path) -> FolderError:
    return FolderError(f"{file} is damaged; remove it to run it again")


def _versions(recorded: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in recorded.items() if name not in ("machine", "devices")}


def run(quick: bool, folder: Path) -> str:
    """Trains what the folder lacks; writes figures and numbers, and returns the answers."""
    study, runs = QUICK if quick else FULL, ResultsFolder(folder / "runs")
    validated = complete(list(validation_parts(study)), runs)
    results: dict[Task, Records] = {task: {} for task in study.tasks}
    for part, records in validated.items():
        results[part.task] |= records
    tested = complete(list(test_parts(study, results)), runs)
    for task, records in results.items():
        write_figure(folder / f"{task.dataset}.png", report.heat_maps(task, records))
    rows = [row for task, records in results.items() for row in report.rows(task, records)]
    write_csv(folder / "validation.csv", rows)
    by_task = {part.task: records for part, records in tested.items()}
    # Where the runs were trained, which need not be here.
    environments = (_read(_file(part, runs))[0]["environment"] for part in (*validated, *tested))
    page = report.page(results, by_task)
    return f"{page}\n\n{measured_with(environments, PACKAGES).replace('Measured', 'Trained')}"
