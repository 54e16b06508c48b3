"""Tables, as Markdown and as CSV."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from benchmarks.training.records import ResultsFolder


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table without what stands around it."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def table_of(frame: pd.DataFrame) -> str:
    """Returns a data frame without its index as a Markdown table."""
    return markdown_table(list(frame.columns), frame.astype(str).to_numpy().tolist())


def csv_text(frame: pd.DataFrame) -> str:
    """Returns a data frame without its index as comma-separated values."""
    return frame.to_csv(index=False, lineterminator="\n", na_rep="nan")


def write_csv(file: Path, rows: pd.DataFrame | Sequence[Mapping[str, object]]) -> None:
    """Writes a data frame without its index, or rows of the same columns; what is missing is empty."""
    # As objects: a column of whole numbers stays one where a cell is empty.
    frame = pd.DataFrame(rows, dtype=object)
    ResultsFolder(file.parent).write_text(file.name, csv_text(frame.where(frame.map(_is_there), "")))


def _is_there(cell: object) -> bool:
    return cell is not None
