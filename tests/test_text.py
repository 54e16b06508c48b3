"""Text: where it comes from, its tokens and splits, and training on it."""

import dataclasses
import zlib
from functools import partial
from unittest import mock

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType

from benchmarks.cli import main
from benchmarks.config.settings import Settings, SettingsError
from benchmarks.data import corpora
from benchmarks.data.registry import DataError, load, prepare
from benchmarks.data.splits import Sequences
from benchmarks.data.text import Stdlib, sequences, train_tokenizer, vocabulary_size
from benchmarks.models.llama import Llama, Size
from benchmarks.models.registry import MODELS, Model
from benchmarks.training import runner as sweep
from benchmarks.training.loop import check, train
from benchmarks.training.records import read
from tests.reference_models import llama, nll

TINY = Size(layers=1, width=16, heads=2, hidden=24)
DOCUMENTS = [
    "def f(x):\n    return x + 1\n" * 20,
    "naïve ∀ tabs\tand\r\nends",
    "",
    "class A:\n    pass\n" * 9,
]


@pytest.fixture(autouse=True, scope="module")
def _tiny_model():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "llama_small", Model(partial(Llama, TINY), "sequences"))
        yield


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Returns a standard library of a hundred files."""
    library = tmp_path_factory.mktemp("library")
    write(library, {f"m{i:02}.py": f"# Module {i}.\n" + f"x = f({i}, y{i})\n" * 10 for i in range(100)})
    return library


@pytest.fixture(scope="module")
def data(library, tmp_path_factory):
    """Returns a folder with that library, ready to be read."""
    folder = tmp_path_factory.mktemp("data")
    with mock.patch.object(corpora, "STANDARD_LIBRARY", library):
        prepare("stdlib", data_dir=folder)
    return folder


def split_of(rows, per_epoch=None):
    return Sequences(mock.Mock(read_all=lambda: [{"tokens": row} for row in rows]), per_epoch)


# Tokens.


def test_documents_can_be_read_from_their_tokens():
    tokenizer = train_tokenizer(DOCUMENTS[:1], 300)
    end = vocabulary_size(tokenizer) - 1
    tokens = sequences(tokenizer, DOCUMENTS, 1).ravel()
    ends = np.flatnonzero(tokens == end)
    assert len(ends) == len(DOCUMENTS)
    parts = [part[part != end] for part in np.split(tokens, ends)][:-1]
    assert [tokenizer.decode(part.tolist()) for part in parts] == DOCUMENTS
    assert tokens.max() == end
    # Some bytes have been merged.
    assert len(tokens) < 0.6 * len("".join(DOCUMENTS).encode())


def test_sequences_follow_each_other_and_the_rest_is_dropped():
    tokenizer = train_tokenizer(DOCUMENTS, 300)
    whole = sequences(tokenizer, DOCUMENTS, 1).ravel()
    rows = sequences(tokenizer, DOCUMENTS, 7)
    np.testing.assert_array_equal(rows.ravel(), whole[: len(whole) // 7 * 7])


def test_the_tokenizer_is_a_function_of_its_documents():
    first, again, other = (train_tokenizer(texts, 300) for texts in (DOCUMENTS, DOCUMENTS, DOCUMENTS[3:]))
    assert first.to_str() == again.to_str() != other.to_str()


def test_the_tokenizer_knows_the_training_documents_only(library, data):
    documents = corpora.standard_library(library)
    everything = [text for texts in documents.values() for text in texts]
    of_train, of_all = (
        train_tokenizer(texts, Stdlib.VOCABULARY).to_str() for texts in (documents["train"], everything)
    )
    assert Stdlib(data_dir=data).info.metadata["tokenizer"] == of_train != of_all


def test_labels_are_the_next_tokens_and_epochs_go_through_all_of_them():
    rows = np.arange(60).reshape(10, 6)
    split = split_of(rows, 4)
    assert len(split) == 4
    seen = []
    for epoch in range(5):
        tokens, labels = split.load(np.arange(4), (0, epoch))
        np.testing.assert_array_equal(labels, tokens + 1)
        seen.extend(tokens[:, 0] // 6)
    # Twice ten, each of them twice, and not in their order.
    assert sorted(seen[:10]) == list(range(10))
    assert seen[:10] == seen[10:] != list(range(10))
    tokens, _ = split_of(rows).load(np.arange(10), None)
    np.testing.assert_array_equal(tokens, rows[:, :-1])


# Corpora.


def test_the_standard_library_is_split_between_files_in_their_order(tmp_path):
    texts = {f"{name}.py": name * 100 for name in "abcdefghijklmnopqrst"} | {"pkg/inner.py": "p" * 100}
    left_out = ("test/a.py", "json/tests/a.py", "site-packages/a.py", "_sysconfigdata_x.py", "encodings/a.py")
    write(tmp_path, {**texts, **dict.fromkeys(left_out, "left out"), "readme.txt": "no"})
    split = corpora.standard_library(tmp_path)
    assert {name: len(documents) for name, documents in split.items()} == {
        "train": 19,
        "validation": 1,
        "test": 1,
    }
    assert [*split["train"], *split["validation"], *split["test"]] == [texts[name] for name in sorted(texts)]


def r_database(novels):
    """Returns what R writes for vectors of lines."""
    content = b""
    for lines in novels:
        vector = b"X\n" + bytes.fromhex("00000003 00040201 00030500 00000005") + b"UTF-8"
        vector += (16).to_bytes(4, "big") + len(lines).to_bytes(4, "big")
        for line in lines:
            # The flag says whether it is ASCII or UTF-8.
            flag = "00040009" if line.isascii() else "00008009"
            vector += bytes.fromhex(flag) + len(line.encode()).to_bytes(4, "big") + line.encode()
        content += len(vector).to_bytes(4, "big") + zlib.compress(vector)
    return content


def test_the_novels_are_read_and_the_last_two_are_held_out(tmp_path):
    novels = [[f"NOVEL {i}", "", f"It was “{i}”."] for i in range(6)]
    (tmp_path / "Rdata.rdb").write_bytes(r_database(novels))
    texts = ["\n".join(lines) for lines in novels]
    split = corpora.austen(tmp_path)
    assert split == {"train": texts[:4], "validation": [texts[4]], "test": [texts[5]]}


def test_a_package_of_novels_that_is_not_installed_is_named(tmp_path):
    with pytest.raises(DataError) as error:
        prepare("austen", data_dir=tmp_path, source=tmp_path)
    advice = "`apt install r-cran-janeaustenr` brings it, or --source DIR names a folder that has it"
    assert str(error.value) == f"{tmp_path / 'Rdata.rdb'} is missing: {advice}"


def test_c4_that_tfds_has_not_prepared_is_told(tmp_path):
    with pytest.raises(DataError) as error:
        prepare("c4", data_dir=tmp_path, source=tmp_path)
    assert str(error.value).startswith(
        f"{tmp_path / 'c4' / 'en'} has no prepared dataset: --source DIR names"
    )


@pytest.mark.slow
def test_c4_is_read_from_a_folder_of_tfds(tiny_data):
    test, validation = (load("c4", held_out=held, data_dir=tiny_data) for held in ("test", "validation"))
    assert test.shape == (256,)
    assert 256 < test.classes < 1000  # bytes and the made-up words.
    np.testing.assert_array_equal(test.train.tokens, validation.train.tokens)
    rows = [set(map(bytes, split.tokens)) for split in (test.train, test.held_out, validation.held_out)]
    assert not rows[0] & rows[1]
    assert not rows[0] & rows[2]
    assert not rows[1] & rows[2]


def test_the_standard_library_takes_no_source(tmp_path):
    with pytest.raises(DataError, match="stdlib comes with Python: it takes no --source"):
        prepare("stdlib", data_dir=tmp_path, source=tmp_path)


# Training.


def mesh_of(count):
    return jax.make_mesh((count,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])


SETTINGS = Settings("stdlib", "llama_small", "sgd", 16, 1, 0.1)


@pytest.fixture(scope="module")
def alone(data):
    """Returns what one device measures in an epoch, and its parameters in float64."""
    with jax.default_prng_impl("rbg"):  # which compiles sooner.
        run = train(SETTINGS, load("stdlib", data_dir=data), mesh=mesh_of(1))
        epoch = next(run)
        with pytest.raises(StopIteration) as end:
            next(run)
    params = nnx.to_pure_dict(end.value.value.params)
    return epoch, jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)


def test_losses_are_means_over_all_tokens_of_all_sequences(data, alone):
    epoch, params = alone
    dataset = load("stdlib", data_dir=data)
    held_out = len(dataset.held_out)
    assert held_out % SETTINGS.batch_size > 0  # so that the last batch is filled up.
    tokens, labels = dataset.held_out.load(np.arange(held_out), None)
    logits = llama(tokens, params, TINY.heads)
    losses = nll(logits.reshape(-1, logits.shape[-1]), labels.ravel())
    assert len(losses) == held_out * 64
    assert epoch.held_out_nll == pytest.approx(losses.mean(), rel=1e-5)
    assert epoch.held_out_metric == pytest.approx(np.mean(logits.argmax(-1) == labels), abs=1e-7)
    # It has learned something: it began at the logarithm.
    assert epoch.held_out_nll < epoch.train_nll < np.log(dataset.classes)


@pytest.mark.slow
def test_a_job_on_eight_devices_reports_what_one_measures(data, alone, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "all_devices", lambda: mesh_of(8))
    options = ("--optimizer", "sgd", "--batch-size", 16, "--epochs", 1, "--learning-rate", 0.1)
    command = ["text", *options]
    with jax.default_prng_impl("rbg"):
        assert main([*map(str, command), "--data-dir", str(data), "--output", str(tmp_path)]) == 0
    (run,) = read(tmp_path)
    measured = [run.epochs[0][name] for name in ("train_nll", "train_top1", "held_out_nll", "held_out_top1")]
    # A dozen steps of sums in another order.
    np.testing.assert_allclose(measured, alone[0][:4], rtol=1e-4)
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "| train NLL | test NLL | test perplexity |" in table
    sizes = run.examples
    assert f"stdlib ({sizes['train']} sequences an epoch, {sizes['held_out']} to test)" in table


@pytest.mark.parametrize(
    ("dataset", "model", "message"),
    [
        ("stdlib", "resnet8", "resnet8 takes images, and stdlib has sequences: name another --model or"),
        ("digits", "llama_small", "llama_small takes sequences, and digits has images: name another --model"),
    ],
)
def test_a_model_for_other_data_is_refused_in_a_line(dataset, model, message, data):
    settings = dataclasses.replace(SETTINGS, dataset=dataset, model=model)
    with pytest.raises(SettingsError) as error:
        check(settings, load(dataset, data_dir=data), mesh_of(8))
    assert str(error.value).startswith(message)


def test_more_sequences_than_there_are_is_refused_in_a_line(data):
    with pytest.raises(
        SettingsError, match=r"a batch of 80000 is more than the \d+ training sequences of stdlib"
    ):
        check(dataclasses.replace(SETTINGS, batch_size=80000), load("stdlib", data_dir=data), mesh_of(8))
