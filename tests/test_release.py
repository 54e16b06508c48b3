"""What is released, and under which name and date."""

import re
import subprocess
import sys
import tarfile
import zipfile
from datetime import date

import lpoptax
from tests.documentation import ROOT, blocks

CITATION = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
CITING = (ROOT / "docs" / "start" / "citing.md").read_text(encoding="utf-8")


def cited(field):
    """Returns what CITATION.cff says of the software itself, where its line begins with the field."""
    (value,) = re.findall(rf"^{field}: (.*)$", CITATION, re.MULTILINE)
    return value


def test_the_wheel_holds_the_library_alone(tmp_path):
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        tmp_path,
        ROOT,
    ]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("lpoptax-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"lpoptax"}
    assert "lpoptax/py.typed" in names
    assert {name for name in names if name.endswith(".py")} == {
        f"lpoptax/{module.name}" for module in (ROOT / "lpoptax").glob("*.py")
    }


def test_the_sdist_holds_what_the_tests_read_and_nothing_that_was_built(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", tmp_path]
    subprocess.run(build, check=True, capture_output=True, cwd=ROOT)
    (sdist,) = tmp_path.glob("lpoptax-*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    for file in ("README.md", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "pyproject.toml"):
        assert file in names
    for folder in (".ci", "benchmarks", "docs", "lpoptax", "notebooks", "tests"):
        assert any(name.startswith(f"{folder}/") for name in names), folder
    assert not any("_build" in name or "__pycache__" in name or name.startswith(".venv") for name in names)
    assert sdist.stat().st_size < 5e6


def test_the_version_is_that_of_the_citation_and_of_the_latest_changes():
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    (version, day), *_ = re.findall(r"^## (\d.*) \((.*)\)$", changes, re.MULTILINE)
    assert lpoptax.__version__ == version == cited("version")
    assert date.fromisoformat(day) == date.fromisoformat(cited("date-released"))


def test_the_page_on_citing_cites_what_the_citation_file_does():
    (entries,) = blocks(CITING, "bibtex")
    assert f"version = {{{lpoptax.__version__}}}" in entries
    titles = re.findall(r"^ *title = \{(.*)\},$", entries, re.MULTILINE)
    assert len(titles) == entries.count("@")
    for title in titles:
        symbols = title.replace(r"\ell", "\N{SCRIPT SMALL L}").replace(r"\infty", "\N{INFINITY}")
        plain = re.sub(r"[{}$_]", "", symbols)
        assert re.search(rf'title: "?{re.escape(plain)}"?$', CITATION, re.MULTILINE), title
