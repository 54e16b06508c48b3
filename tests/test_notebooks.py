"""The notebooks run, and what is saved in them is what they show."""

import ast
import json
import re

import pytest

from tests.notebooks import METADATA, PATHS, ROOT, executed, read

MODULES = {"flax", "functools", "jax", "lpoptax", "matplotlib", "numpy", "optax", "sklearn"}

each_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell):
    """Returns what sorts of output a cell has: figures, text, warnings."""
    return [
        "figure" if "image/png" in output.get("data", ()) else output.get("name", output.output_type)
        for output in cell.outputs
    ]


@pytest.mark.slow
@each_notebook
def test_it_runs_from_start_to_end_and_shows_what_is_saved(path):
    # Figures and text, but not their content: numbers differ between versions of JAX.
    shown, saved = (
        [kinds(cell) for cell in code_cells(notebook)] for notebook in (executed(path), read(path))
    )
    assert shown == saved


@each_notebook
def test_it_is_saved_as_executed_in_order_with_all_figures_and_without_warnings(path):
    cells = code_cells(read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert set(kinds(cell)) <= {"stdout", "figure"}
        assert kinds(cell).count("figure") == cell.source.count("plt.show()")


@each_notebook
def test_nothing_in_it_tells_when_or_where_it_ran(path):
    notebook = read(path)
    assert notebook.metadata == METADATA
    for cell in notebook.cells:
        assert cell.metadata.keys() <= {"mystnb"}
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop("image/png", None)
    assert not re.search(r"(?<![\w.)])/\w+/|\b[A-Z]:\\", json.dumps(notebook).replace("\\n", "\n"))


@each_notebook
def test_its_figures_have_a_text_for_those_who_do_not_see_them(path):
    for cell in code_cells(read(path)):
        assert ("figure" in kinds(cell)) == bool(cell.metadata)
        if cell.metadata:
            assert len(cell.metadata["mystnb"]["image"]["alt"]) > 40


@each_notebook
def test_it_imports_what_its_extra_brings(path):
    trees = [ast.walk(ast.parse(cell.source)) for cell in code_cells(read(path))]
    imported = {
        name.split(".")[0]
        for tree in trees
        for node in tree
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [part.name for part in node.names]
        )
    }
    assert imported <= MODULES
    assert "pip install '.[notebooks]'" in read(path).cells[0].source


@each_notebook
def test_it_is_small(path):
    assert path.stat().st_size < 300_000


def test_the_readme_names_every_notebook():
    assert PATHS
    for path in PATHS:
        assert f"(notebooks/{path.name})" in (ROOT / "README.md").read_text()
