"""The rooms of the benchmarks, from the lowest to the highest: what each module may import."""

import ast
import functools
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "benchmarks"
ROOMS = ["models", "data", "config", "training", "reporting", "studies", "top"]
FLOORS, LINES = 8, 270  # of rooms above each other, and in a module with its comments.
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts): file
    for file in ROOT.rglob("*.py")
    if file.name != "__init__.py"
}
every_module = pytest.mark.parametrize("module", sorted(MODULES))


@functools.cache
def imported(module):
    """Returns the modules of the benchmarks that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("benchmarks"):
            path = node.module.removeprefix("benchmarks").removeprefix(".")
            names = [f"{path}.{alias.name}".removeprefix(".") for alias in node.names]
            found |= {path} & MODULES.keys() or set(names) & MODULES.keys()
    return found


def room(module):
    return ROOMS.index(module.partition(".")[0]) if "." in module else ROOMS.index("top")


@every_module
def test_a_module_imports_from_its_own_room_and_those_below(module):
    above = [other for other in imported(module) if room(other) > room(module)]
    assert above == []


def test_no_module_imports_itself_by_way_of_others():
    def visit(module, above):
        assert module not in above, f"a circle: {(*above, module)}"
        for other in imported(module):
            visit(other, (*above, module))

    for module in MODULES:
        visit(module, ())


def test_the_rooms_have_few_floors():
    of_room = {}
    for module in MODULES:
        here = module.partition(".")[0]
        there = {other.partition(".")[0] for other in imported(module)} - {here}
        of_room[here] = of_room.get(here, set()) | there

    def floor(here):
        return 1 + max(map(floor, of_room[here]), default=0)

    assert max(map(floor, of_room)) <= FLOORS


@every_module
def test_a_module_is_short(module):
    assert len(MODULES[module].read_text().splitlines()) <= LINES
