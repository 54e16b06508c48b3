"""The experiment on the Hessian's spectrum: what it measures, and that it continues."""

import dataclasses
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from matplotlib.image import imread

from benchmarks.cli import main
from benchmarks.config.settings import Settings
from benchmarks.data.registry import load
from benchmarks.models.convolutions import convolve, with_matrix_products
from benchmarks.models.registry import MODELS, Model
from benchmarks.studies import hessian
from benchmarks.studies.hessian import (
    QUICK,
    STUDIES,
    compiled_measurement,
    fixed_batches,
    run,
    runs,
)
from benchmarks.studies.hessian_report import answer, frame_of
from benchmarks.training import runner
from benchmarks.training.loop import all_devices, train
from benchmarks.training.records import Run, environment, read
from benchmarks.training.step import start


class Linear(nnx.Module):
    """A normalised linear model, which compiles sooner than a network with convolutions."""

    def __init__(self, *, shape, classes, dtype, rngs):
        """Makes the model for the digits."""
        self.norm = nnx.BatchNorm(64, dtype=dtype, rngs=rngs)
        self.head = nnx.Linear(64, classes, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        """Maps images to logits."""
        return self.head(self.norm(x.reshape(len(x), -1)))


@pytest.fixture
def _linear(monkeypatch):
    monkeypatch.setitem(MODELS, "resnet4", Model(Linear))


@pytest.mark.parametrize(("size", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (1, 2, 0), (2, 3, 1)])
def test_the_product_of_patches_is_a_convolution(size, stride, padding):
    rng = np.random.default_rng(0)
    x, kernel = (
        rng.standard_normal(shape).astype(np.float32) for shape in ((2, 7, 8, 3), (size, size, 3, 5))
    )
    x, kernel = x.astype(np.float32), kernel.astype(np.float32)
    strides, padding = (stride, stride), ((padding, padding),) * 2
    expected = lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
    )
    np.testing.assert_allclose(convolve(x, kernel, strides, padding), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_network_with_products_for_convolutions_has_the_same_outputs_and_gradients(stride):
    conv = nnx.Conv(2, 3, (3, 3), stride, padding=((1, 1), (1, 1)), precision="highest", rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(conv)
    program, state = SimpleNamespace(evaluated=graphdef), SimpleNamespace(params=params, model_state={})
    patched = with_matrix_products(program.evaluated, state.params, state.model_state)
    x, weights = (np.random.default_rng(0).standard_normal((2, 6, 7, n)).astype(np.float32) for n in (2, 3))

    @partial(jax.jit, static_argnums=0)
    def outputs_and_gradients(graphdef, params, x):
        def weighted(params, x):
            y = nnx.merge(graphdef, params)(x)
            return jnp.sum(y**2 * weights[:, : y.shape[1], : y.shape[2]]), y

        (_, y), gradients = jax.value_and_grad(weighted, (0, 1), has_aux=True)(params, x)
        return y, gradients

    texts = [outputs_and_gradients.lower(network, params, x).as_text() for network in (graphdef, patched)]
    assert ["stablehlo.convolution" in text for text in texts] == [True, False]
    expected = outputs_and_gradients(graphdef, params, x)
    chex.assert_trees_all_close(outputs_and_gradients(patched, params, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"kernel_dilation": 2}, {"input_dilation": 2}, {"feature_group_count": 2}, {"padding": "SAME"}],
)
def test_other_convolutions_are_refused(options):
    options = {"padding": ((1, 1), (1, 1)), "conv_general_dilated": convolve, **options}
    with pytest.raises(ValueError, match="explicit padding, no dilation and one group, got"):
        nnx.Conv(2, 4, (3, 3), rngs=nnx.Rngs(0), **options)(jnp.ones((1, 6, 7, 2)))


@pytest.mark.usefixtures("_linear")
@pytest.mark.slow
def test_the_experiment_writes_what_it_measured_and_repeats_nothing(tmp_path, monkeypatch):
    command = ["hessian", "--quick", "--output", str(tmp_path)]
    assert main(command) == 0
    (record,) = read(tmp_path / "runs")
    before, after = record.epochs
    assert (before["epoch"], after["epoch"]) == (0, 1)
    assert after["loss"] < before["loss"]
    assert after["held_out_top1"] > 0.1
    page = (tmp_path / "digits.md").read_text()
    assert "| LPSGDM, p 6 → 2 | 1 | " in page
    assert page.endswith(f" on {environment()['machine']}, devices: {environment()['devices']}.\n")
    assert "Flat late: " in (tmp_path / "table.md").read_text()
    for name in ("density", "curves"):
        height, width, _ = imread(tmp_path / f"digits-{name}.png").shape
        assert width > 600
        assert height > 200

    monkeypatch.setattr(runner, "train", None)
    assert main(command) == 0
    assert (tmp_path / "digits.md").read_text() == page


RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "hessian"


def test_the_committed_records_are_those_of_the_studies():
    found = read(RESULTS / "runs")
    assert {run.settings for run in found} == {settings for study in STUDIES for settings in runs(study)}
    for study in STUDIES:
        of_study = [run for run in found if run.settings.dataset == study.dataset]
        assert {tuple(line["epoch"] for line in run.epochs) for run in of_study} == {study.epochs}


def test_the_page_tells_deviations_and_the_versions_that_measured(tmp_path, monkeypatch):
    headings = []
    for name in ("densities", "curves"):
        monkeypatch.setattr(hessian, name, lambda frame, title: headings.append(title))
    monkeypatch.setattr(hessian, "write_figure", lambda file, figure: None)
    monkeypatch.setattr(hessian, "STUDIES", STUDIES[:1])
    (tmp_path / "runs").mkdir()
    text = (RESULTS / "runs" / "digits.jsonl").read_text()
    (tmp_path / "runs" / "digits.jsonl").write_text(text.replace('"jax": "0.10.2"', '"jax": "0.0.1"'))
    title = "resnet8 on digits, 3 seeds, mean"
    assert run(False, tmp_path).startswith(f"## {title} ± standard deviation\n")
    assert headings == [title, f"{title} ± standard deviation"]
    assert ", jax 0.0.1, flax " in (tmp_path / "digits.md").read_text()


def finish(run):
    """Returns the state that a run ends with."""
    while True:
        try:
            next(run)
        except StopIteration as stop:
            return stop.value


@pytest.mark.usefixtures("_linear")
def test_the_training_shows_its_state_before_the_first_step_and_after_each_epoch():
    (settings,), dataset, seen = runs(QUICK[0]), load("digits"), []
    settings = dataclasses.replace(settings, epochs=2)

    def inspect(step, program, state):
        seen.append((step, jax.tree.map(np.asarray, state.params)))

    final = finish(train(settings, dataset, inspect=inspect))
    steps, params = zip(*seen, strict=True)
    assert steps == (0, 25, 50)
    _, initial = start(settings, dataset, all_devices())
    chex.assert_trees_all_equal(params[0], jax.tree.map(np.asarray, initial.params))
    chex.assert_trees_all_equal(params[2], jax.tree.map(np.asarray, final.params))
    assert not np.allclose(params[1]["head"]["kernel"][...], params[2]["head"]["kernel"][...])


@pytest.mark.usefixtures("_linear")
def test_the_loss_is_that_of_training_on_fixed_whole_batches():
    (settings,), dataset, effort = runs(QUICK[0]), load("digits"), QUICK[0].effort
    program, state = start(settings, dataset, all_devices())
    images, labels = fixed_batches(settings, dataset, effort)
    graphdef = with_matrix_products(program.evaluated, state.params, state.model_state)
    measure = compiled_measurement(graphdef, dataset.mean, dataset.std, effort)
    measured = measure(state.params, state.model_state, images, labels, jax.random.key(0))

    stored, truth = dataset.train.load(np.arange(96), None)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), nnx.to_pure_dict(state.params))
    x = (stored.reshape(2, 48, 64) - dataset.mean[0]) / dataset.std[0]
    # The statistics of each batch.
    x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
    logits = x @ params["head"]["kernel"] + params["head"]["bias"]
    logits -= np.log(np.exp(logits).sum(axis=2, keepdims=True))
    nll = -np.take_along_axis(logits, truth.reshape(2, 48, 1), axis=2)
    assert float(measured["loss"]) == pytest.approx(nll.mean(), rel=1e-5)
    assert measured["num_params"] == 64 * 2 + 64 * 10 + 10


def of_run(optimizer, seed, **last):
    settings = Settings("digits", "resnet8", optimizer, 50, 1, 0.1, seed=seed)
    first = {
        "epoch": 0,
        "eigenvalues": [],
        "num_params": 10,
        "evenness": 0.2,
        "frobenius_norm": 8,
        "largest": 4,
        "smallest": -2,
    }
    first |= {"largest": 4, "smallest": -2, "coordinate_evenness": 0.5, "gradient_evenness": 0.4}
    return Run(settings, {}, {}, [first, first | last | {"epoch": 1}])


def test_the_answer_counts_the_runs_in_which_each_part_of_the_premise_holds():
    lower = {"frobenius_norm": 1, "evenness": 0.1, "coordinate_evenness": 0.25, "gradient_evenness": 0.1}
    flat = [of_run("sgdm", seed, **lower) for seed in range(2)]
    even = of_run("adamw", 0, smallest=-1, evenness=0.6, coordinate_evenness=0.5, gradient_evenness=0.8)
    text = answer(frame_of([*flat, even]))
    assert "‖H‖ falls in 2 of 3 (median 0.125)" in text
    assert "beside the positive in 1 of 3 (median 1)" in text
    assert "directions increase in 1 of 3 (median 0.5), the evenness of the coordinates in 0 of 3" in text
    assert "φ(g)/√φ(c) falls in 2 of 3 (median 0.354)" in text
