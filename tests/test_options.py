"""The command line's options: each setting is one, every documented command is read, mistakes are told."""

import dataclasses
import itertools
import re
from pathlib import Path

import pytest

from benchmarks import cli, jobs
from benchmarks.config.settings import ANNOTATIONS, PRESETS, Settings, SettingsError, check, presets
from tests.documentation import PAGES

ROOT = Path(__file__).parents[1]
OPTIONS = {  # two values of each setting, and one that is refused.
    "batch_size": (["8", "16"], "0"),
    "epochs": (["1", "20"], "0"),
    "learning_rate": (["0.1", "3e-4"], "0"),
    "weight_decay": (["0", "0.1"], "-0.1"),
    "p": (["3", "inf"], "1"),
    "p_final": (["2", "inf"], "nan"),
    "normalization": (["rms", "dual_norm"], "l2"),
    "per_leaf": (["True", "False"], "perhaps"),
    "matrices": (["hidden", "all"], "some"),
    "nesterov": (["True", "False"], "perhaps"),
    "b1": (["0", "0.9"], "1"),
    "b2": (["0", "0.9"], "1"),
    "eps": (["0", "1e-8"], "inf"),
    "alpha": (["0.1", "1"], "0"),
    "tau": (["0", "1"], "1.5"),
    "anneal": (["epoch", "step"], "never"),
    "schedule": (["warmup_cosine", "warmup_constant"], "linear"),
    "warmup_steps": (["0", "10"], "-1"),
    "decay": (["all", "kernels"], "biases"),
    "dtype": (["float32", "bfloat16"], "int8"),
    "held_out": (["test", "validation"], "train"),
}
each_option = pytest.mark.parametrize("name", OPTIONS)
LINES = PRESETS.read_text(encoding="utf-8").splitlines()[1:]


@pytest.fixture
def read(monkeypatch):
    """Returns a function that reads a command and returns the job, which does not run."""
    begun = []
    for job in (*cli.JOBS.values(), jobs.Study):
        monkeypatch.setattr(job, "run", lambda self, console: begun.append(self), raising=False)

    def read(*arguments):
        assert cli.main(arguments) == 0
        return begun.pop()

    return read


def test_what_decides_a_run_is_an_option():
    others = {"dataset", "model", "optimizer", "seed"}
    assert {field.name for field in dataclasses.fields(Settings)} == OPTIONS.keys() | others


@each_option
def test_a_setting_has_one_value_in_a_run_and_several_in_a_sweep(name, read):
    (first, second), _ = OPTIONS[name]
    option = f"--{name.replace('_', '-')}"
    assert read("images").settings == {}
    one, two = read("images", option, first).settings, read("sweep", option, first, second).settings
    assert one.keys() == two.keys() == {name}
    assert two[name][:1] == one[name]
    assert len(set(two[name])) == 2
    # The types are those of the settings: records tell 1 from 1.0.
    kinds = {"batch_size": int, "epochs": int, "warmup_steps": int, "per_leaf": bool, "nesterov": bool}
    kind = kinds.get(name, float if first[0].isdecimal() else str)
    assert {type(value) for value in two[name]} == {kind}


@each_option
@pytest.mark.parametrize("job", ["images", "sweep"])
def test_what_a_setting_may_not_be_is_told(name, job, read, capsys):
    _, wrong = OPTIONS[name]
    option = f"--{name.replace('_', '-')}"
    with pytest.raises(SystemExit) as stop:
        read(job, option, wrong)
    assert stop.value.code == 2
    told = " ".join(capsys.readouterr().err.split())
    assert option in told
    assert wrong in told


@pytest.mark.parametrize("row", dict.fromkeys(tuple(line.split(",")[:4]) for line in LINES), ids="-".join)
def test_presets_are_what_a_setting_may_be(row):
    paper, *names = row
    for preset in presets(*names, paper):
        check(preset, ANNOTATIONS)
    with pytest.raises(SettingsError, match="--learning-rate must be a number above 0, got -1"):
        check({**preset, "learning_rate": -1.0}, ANNOTATIONS)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["train"],
        ["compare", "--colour", "red"],
        ["compare", "--epochs"],
        ["compare", "--seeds", "two"],
        ["images", "--optimizer", "sgdm", "lion"],
        ["images", "--p", "3", "4"],
        ["tune", "--held-out", "test"],
        ["time", "--epochs", "3"],
        ["landscapes", "--quik"],
        ["report"],
    ],
)
def test_an_option_that_cannot_be_read_is_told(arguments, read, capsys):
    with pytest.raises(SystemExit) as stop:
        read(*arguments)
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert "--help" in err
    assert out == ""


def commands():
    """Returns the commands that the documentation shows, without those that leave something to fill in."""
    for file in (ROOT / "README.md", *PAGES):
        text = file.read_text(encoding="utf-8").replace("\\\n", " ")
        for command in re.findall(r'python -m (benchmarks(?: [^`|\n("#]*)?)', text):
            words = command.rstrip(" &,.").split()[1:]
            if words and "..." not in words:
                yield " ".join(words)


@pytest.mark.parametrize("command", dict.fromkeys(commands()))
def test_every_documented_command_is_read(command, read):
    job, *options = command.split()
    found = read(job, *options)
    for name, value in itertools.pairwise(options):
        if name in ("--dataset", "--model", "--output", "--paper"):
            assert str(getattr(found, name[2:])) == value


def test_an_option_goes_to_the_field_of_its_name(read):
    job = read("sweep", "--optimizer", "sgdm", "lpsgdm", "--seeds", "2", "--data-dir", "data")
    assert (job.optimizers, job.seeds) == (("sgdm", "lpsgdm"), 2)
    assert (job.data_dir, job.output, job.distributed) == (Path("data"), None, None)
    assert (job.dataset, job.model, job.paper) == ("digits", "resnet8", None)
    text = read("text", "--optimizer", "sgd", "--seed", "4")
    assert (text.dataset, text.model, text.optimizers, text.seed) == ("stdlib", "llama_small", ("sgd",), 4)
    assert read("tune", "--trials", "3").trials == 3
    assert read("report", "runs", "--at", "1", "3").at == (1, 3)
    assert read("prepare", "cifar10", "--source", "files").source == Path("files")
    study = read("landscapes", "--quick", "--output", "out")
    assert (study.quick, study.output) == (True, Path("out"))


@pytest.mark.parametrize(("words", "joined"), [([], ()), (["host:1234", "2", "1"], ("host:1234", 2, 1))])
def test_processes_are_joined_by_the_place_that_is_named(words, joined, read, monkeypatch):
    places = []
    monkeypatch.setattr("jax.distributed.initialize", lambda *place: places.append(place))
    read("images", "--distributed", *words)
    assert places == [joined]
