"""Tables, as Markdown and as CSV."""

import csv
import io
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


def csv_text(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Returns a table as comma-separated values."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue()


def write_csv(file: Path, rows: pd.DataFrame | Sequence[Mapping[str, object]]) -> None:
    """Writes a data frame without its index, or rows of the same columns; what is missing is empty."""
    text = pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")
    ResultsFolder(file.parent).write_text(file.name, text)
