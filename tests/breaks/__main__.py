"""Applies each break to a copy of the tree and says whether the tests catch it.

python -m tests.breaks [core | benchmarks] [NUMBER ...]
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.breaks import Break, benchmarks, core

ROOT = Path(__file__).parents[2]
LISTS = {"core": core.BREAKS, "benchmarks": benchmarks.BREAKS}
COPIED = (
    "lpoptax",
    "benchmarks",
    "tests",
    "docs",
    "pyproject.toml",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
)


def is_caught(one: Break, tree: Path) -> bool:
    """Says whether the tests fail in a tree with the break; the tree is mended afterwards."""
    file = tree / one.file
    text = file.read_text()
    if text.count(one.old) != 1:
        sys.exit(f"{one.file} has {text.count(one.old)} times: {one.old!r}")
    file.write_text(text.replace(one.old, one.new))
    command = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *one.tests.split()]
    done = subprocess.run(
        command, cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)}, capture_output=True, text=True
    )
    file.write_text(text)
    if done.returncode not in (0, 1):
        sys.exit(f"pytest could not run {one.tests}:\n{done.stdout}{done.stderr}")
    return done.returncode == 1


def main(arguments: list[str]) -> int:
    """Tries the breaks that are named; returns how many were missed."""
    names = [name for name in arguments if name in LISTS] or list(LISTS)
    numbers = [int(argument) for argument in arguments if argument.isdecimal()]
    missed = tried = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, tree / name)
        for name in names:
            for number, one in enumerate(LISTS[name]):
                if numbers and number not in numbers:
                    continue
                caught = is_caught(one, tree)
                tried, missed = tried + 1, missed + (not caught)
                print(
                    f"{name} {number}: {'caught' if caught else 'MISSED'}  {one.file}: {one.new.strip()}",
                    flush=True,
                )
    print(f"{tried - missed} of {tried} breaks are caught")
    return missed


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
