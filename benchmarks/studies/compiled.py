"""What an optimizer's step costs on TPUs, from one chip to 1,024, as their own compiler says.

Claim: a step of these optimizers needs no more memory and, but for those of matrices, no more communication
than one of AdamW, on one chip and on slices over which the parameters are divided.

Setting: one step, parameters and state donated, compiled ahead of time by libtpu, without a device and
without an array, for the parameters of a ResNet-50 and of Llamas of 0.1, 1.3 and 6.7 billion parameters.
Parameters, gradients and state are float32 unless bfloat16 is named; each array is divided over all chips
along its longest axis that allows it, on 16 x 16 along two. To Schatten SGDM and Muon the kernels of hidden
layers are matrices.

    python -m benchmarks compiled --output benchmarks/results/compiled

continues where it was interrupted, program by program. It needs libtpu: pip install '.[accelerators]'.
"""

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.reporting.figures import write_figure
from benchmarks.reporting.tables import write_csv
from benchmarks.reporting.topologies import check_libtpu, prepare
from benchmarks.studies import compiled_training
from benchmarks.studies.compiled_programs import COORDINATEWISE, OF_MATRICES, WHOLE, Cell, begin, measure
from benchmarks.studies.compiled_report import draw, page, with_ratios
from benchmarks.studies.compiled_training import TRAININGS, Training
from benchmarks.training.records import FolderError, difference

Row = dict[str, Any]
SECONDS = 600  # of a processor, that a program may take to compile.
ENDED = f"unknown, compiling takes more than {SECONDS} s of a processor, or more memory than is here"
PLACES = (
    ("1 v5e", "Llama, 100 M"),
    ("1 v5e", "ResNet-50"),
    ("16 v5e", "Llama, 1.3 B"),
    ("256 v5e", "Llama, 6.7 B"),
    ("16 x 16 v5e", "Llama, 6.7 B"),
    ("1,024 v5p", "Llama, 6.7 B"),
)
PLACES_OF_MATRICES = (("1 v5e", "Llama, 100 M"), ("16 v5e", "Llama, 100 M"))
FULL = [
    *(Cell(*place, name) for place in PLACES for name in COORDINATEWISE),
    *(
        Cell(*place, name)
        for place in PLACES_OF_MATRICES
        for name in ("AdamW", *OF_MATRICES)
        if (place[0], name) != ("1 v5e", WHOLE)
    ),
]
QUICK = [
    Cell(chips, "two matrices", name) for chips in ("1 v5e", "4 v5e") for name in ("AdamW", "LPSGDM, p = 3")
]
QUICK_TRAININGS = [Training("lpoptax", "digits", "resnet8", "lpsgdm", "float32")]


class Compiler:
    """A process for the compiler, and another one when it has ended that."""

    def __init__(self) -> None:
        """Starts the process."""
        self._process = _process()

    def __call__(self, measure: Callable[[Any, int], Row], cell: Any) -> Row:
        """Returns what is measured of a program, or why it cannot be."""
        try:
            return self._process.submit(measure, cell, SECONDS).result()
        except BrokenProcessPool:
            self._process = _process()
            return {"fits": ENDED}


def _process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=begin)


def complete(cells: Sequence[Any], measured: Callable[[Any], Row], file: Path) -> pd.DataFrame:
    """Measures what a file lacks of the cells, and writes each row to it at once; returns their rows."""
    environment = {package: version(package) for package in ("jax", "libtpu")}
    rows = _known(file, cells[0]._fields, environment)
    for number, cell in enumerate(cells, 1):
        if tuple(cell) not in rows:
            print(f"{number} of {len(cells)}: {', '.join(cell)}", file=sys.stderr)
            rows[tuple(cell)] = {**cell._asdict(), **measured(cell), **environment}
            write_csv(file, pd.DataFrame(rows.values()))
    return pd.DataFrame([rows[tuple(cell)] for cell in cells])


def _known(file: Path, names: Sequence[str], environment: dict[str, str]) -> dict[tuple[str, ...], Row]:
    """Returns the rows of a file, which must be of the same versions."""
    if not file.exists():
        return {}
    rows = pd.read_csv(file, dtype=dict.fromkeys(environment, str)).to_dict("records")
    for row in rows:
        other = difference(environment, {name: row[name] for name in environment})
        if other is not None:
            raise FolderError(f"{file} is of another environment: {other}; name another folder")
    return {tuple(row[name] for name in names): row for row in rows}


def run(quick: bool, folder: Path) -> str:
    """Compiles what the folder lacks; writes a picture, and returns the tables."""
    check_libtpu()
    prepare()
    cells, trainings = (QUICK, QUICK_TRAININGS) if quick else (list(dict.fromkeys(FULL)), TRAININGS)
    compiler = Compiler()
    frame = complete(cells, partial(compiler, measure), folder / "compiled.csv")
    trained = complete(trainings, partial(compiler, compiled_training.measure), folder / "training.csv")
    frame = with_ratios(frame)
    write_figure(folder / "compiled.png", draw(frame))
    return f"{page(frame, trained, ', cut small' if quick else '')} libtpu is {version('libtpu')}."
