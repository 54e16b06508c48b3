"""Executes the notebooks and saves them with what they show: python -m tests.notebooks."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def read(path):
    """Returns the notebook as it is saved."""
    return nbformat.read(path, as_version=4)


def executed(path):
    """Returns the notebook after a run from start to end, with nothing in it that tells when or where."""
    notebook = read(path)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        startup_timeout=600,
        timeout=600,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(ROOT)}},  # to import lpoptax from here, installed or not
    )
    client.execute()
    notebook.metadata = METADATA
    return notebook


if __name__ == "__main__":
    for path in PATHS:
        nbformat.write(executed(path), path)
        print(f"executed {path.relative_to(ROOT)}")
