"""What the experiments share: their command line, and how they write what they measured.

An experiment is a module of its own, named after what it shows and run as
`python -m benchmarks.NAME`. It hands `main` a function that measures, writes figures and
numbers to a folder, and returns what there is to read, as Markdown.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from rich.markdown import Markdown

from benchmarks.config.settings import SettingsError
from benchmarks.data.registry import DataError
from benchmarks.options import Parser, add_output
from benchmarks.training.records import FolderError, ResultsFolder, environment, measured_with

# Okabe and Ito's, which those who confuse red and green can tell apart.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
PACKAGES = ("python", "jax", "flax", "optax", "numpy")


def main(
    name: str,
    run: Callable[[bool, Path], str],
    description: str,
    arguments: Sequence[str] | None = None,
    *,
    continues: bool = False,
) -> int:
    """Runs an experiment as the command line says; returns the exit code.

    Args:
        name: of the experiment's module.
        run: is told whether to be quick and which folder, which exists, to write its figures
            and numbers to; returns a table and how to read it.
        description: what the experiment does, for `--help`.
        arguments: the command line; default None, that of the process.
        continues: whether `run` measures only what the folder lacks.
    """
    parser = _parser(name, description)
    options = parser.parse_args(arguments)
    console = Console(markup=False, emoji=False, highlight=False)
    output = options.output or Path("runs") / (f"{name}-quick" if options.quick else name)
    try:
        folder = ResultsFolder(output)
        page = _page(run(options.quick, folder.path), options.quick)
        folder.write_text("table.md", page)
    except (DataError, FolderError, SettingsError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    except OSError as error:  # of the folder it would be a FolderError.
        parser.exit(2, f"{parser.prog}: error: {' '.join(str(error).split())}\n")
    except KeyboardInterrupt:
        console.print("Interrupted." + (" To continue, repeat the command." if continues else ""))
        return 130
    console.print(Markdown(page))
    console.print(f"Results are in {folder.path}", soft_wrap=True)
    return 0


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table without what stands around it."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def write_csv(file: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Writes rows of the same columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    ResultsFolder(file.parent).write_text(file.name, text.getvalue())


def write_figure(file: Path, figure: Figure) -> None:
    """Writes a picture."""
    ResultsFolder(file.parent).write_bytes(file.name, png(figure))


def png(figure: Figure) -> bytes:
    """Returns a picture in 256 colors, as every clone of the repository holds it."""
    full, image = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png", dpi=100)
    Image.open(full).convert("RGB").quantize(256).save(image, "PNG", optimize=True)
    return image.getvalue()


def _parser(name: str, description: str) -> Parser:
    parser = Parser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument(
        "--quick", action="store_true", help="take seconds: a check that it runs, on a problem cut small"
    )
    add_output(parser, f"folder for the results (default: runs/{name}, or runs/{name}-quick)")
    return parser


def _page(text: str, quick: bool) -> str:
    cut = "\n\nMeasured with --quick, on a problem cut small." if quick else ""
    return f"{text.strip()}{cut}\n\n{measured_with([environment()], PACKAGES)}\n"
