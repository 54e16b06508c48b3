"""The suite: targets, trials and choices by hand-computed cases, and every workload learns."""

import dataclasses
import itertools
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from flax import nnx

from benchmarks.cli import main
from benchmarks.config import suite as config
from benchmarks.config.settings import SettingsError
from benchmarks.config.suite import Cell, contestants, hyperparameters, points, settings_of, workloads
from benchmarks.data import arrays, registry
from benchmarks.data.objectives import CLASSES, DENOISING, RECONSTRUCTION
from benchmarks.data.registry import DataError, Dataset, kind, load, objective_of
from benchmarks.data.splits import Excerpt
from benchmarks.models.registry import MODELS, Model, build_model
from benchmarks.reporting import profiles
from benchmarks.reporting.profiles import (
    best_trial,
    evaluations_to,
    integral,
    median_of,
    profile,
    ratio_to,
    score,
)
from benchmarks.studies import suite, suite_report, suite_targets
from benchmarks.studies.suite_targets import FULL, QUICK, losses
from benchmarks.training import runner
from benchmarks.training.loop import first_device, train
from benchmarks.training.records import Run, read
from tests.documentation import ROOT
from tests.test_hessian import Linear

BY_NAME = {one.name: one for one in contestants()}
INFINITE = math.inf


class Random:
    """A split of made-up examples, whose labels follow from the inputs."""

    def __init__(self, inputs, labels):
        """Takes the arrays."""
        self.inputs, self.labels = inputs, labels

    def __len__(self):
        """Returns the number of examples."""
        return len(self.labels)

    def load(self, indices, seed):
        """Returns inputs and labels."""
        return self.inputs[indices], self.labels[indices]


def made_up(name):
    """Returns 32 examples of the kind that a dataset has."""
    rng, objective = np.random.default_rng(0), objective_of(name)
    what = kind(name).partition(" ")[0]
    if what == "sequences":
        tokens = rng.integers(0, 16, (32, 1)) + np.arange(9)
        split = Random(*((tokens % 16).astype(np.int32)[:, part] for part in (slice(-1), slice(1, None))))
        return Dataset(split, split, 16, (8,), objective=objective)
    shape = {"images": (14, 14, 1), "rows": (16,), "signals": (40, 1)}[what]
    labels = rng.integers(0, 3, 32).astype(np.int32)
    inputs = rng.integers(0, 50, (32, *shape)) + 60 * labels.reshape(-1, *(1 for _ in shape))
    if what == "images":
        split = Random(inputs.astype(np.uint8), labels)
    else:
        split = Random((inputs / 60).astype(np.float32), labels)
    scale = ((100.0,), (60.0,)) if what == "images" else ((), ())
    return Dataset(split, split, 10, shape, *scale, objective=objective)


# Workloads.


def answers(workload):
    """Returns the shapes of a network's answers and of what they are compared with, without computing."""
    dataset = made_up(workload.dataset)
    inputs, labels = (jnp.asarray(array) for array in dataset.train.load(np.arange(4), None))

    def ask():
        task = dataset.objective.task(jax.random.key(0), inputs, labels, lambda inputs: inputs)
        model = build_model(workload.model, dataset.shape, dataset.classes)
        return model(*task.inputs), task.targets

    return [array.shape for array in jax.eval_shape(ask)]


@pytest.mark.parametrize("workload", workloads(), ids=lambda workload: workload.model)
def test_a_network_answers_what_its_data_ask(workload):
    found, asked = answers(workload)
    assert found[: len(asked)] == asked


# What compiles within a few seconds is enough for the fast tests.
QUICKLY = ("autoencoder", "mlp256")
each_workload = pytest.mark.parametrize(
    "workload",
    [
        pytest.param(one, id=one.model, marks=[] if one.model in QUICKLY else pytest.mark.slow)
        for one in workloads()
    ],
)


@each_workload
def test_every_workload_learns_with_finite_losses(workload):
    cell = Cell(workload, BY_NAME["AdamW"], 0, 0, "validation")
    settings = dataclasses.replace(
        settings_of(cell), batch_size=16, epochs=6, learning_rate=3e-3, schedule="constant"
    )
    with jax.default_prng_impl("rbg"):
        epochs = list(train(settings, made_up(workload.dataset), mesh=first_device()))
    assert np.isfinite([epoch[:4] for epoch in epochs]).all()
    assert epochs[-1].train_nll < epochs[0].train_nll
    # What decides is one of them, in the record's names.
    assert f"held_out_{objective_of(workload.dataset).judged_by}" in epochs[0].line(
        objective_of(workload.dataset).metric
    )


@pytest.mark.parametrize("workload", workloads(), ids=lambda workload: workload.model)
def test_a_workload_names_a_model_for_its_data_and_is_judged_a_dozen_times_or_more(workload):
    assert MODELS[workload.model].takes == kind(workload.dataset)
    assert 12 <= workload.epochs <= 20


def test_images_are_given_as_classes_as_pixels_and_as_noise():
    names = [name for name in registry.PARTS if name.startswith("fashion_mnist_12800")]
    assert [objective_of(name) for name in names] == [CLASSES, RECONSTRUCTION, DENOISING]
    assert [kind(name) for name in names] == ["images", "images to reconstruct", "images to denoise"]


def test_a_perfect_reconstruction_has_no_squared_error_and_the_entropy_of_its_pixels():
    images = np.array([[[[0.0], [255.0]], [[51.0], [255.0]]]])
    task = RECONSTRUCTION.task(jax.random.key(0), images, None, None)
    logits = np.log(task.targets + 1e-9) - np.log(1 - task.targets + 1e-9)
    nll, mse = RECONSTRUCTION.figures(logits, task.targets)
    np.testing.assert_allclose(mse, [0], atol=1e-9)
    np.testing.assert_allclose(nll, [-(0.2 * np.log(0.2) + 0.8 * np.log(0.8)) / 4], rtol=1e-4)


def test_noised_images_have_unit_variance_and_as_much_noise_as_their_time_says():
    images = np.random.default_rng(0).standard_normal((64, 14, 14, 1)).astype(np.float32)
    (noised, time), noise = DENOISING.task(jax.random.key(0), images, None, lambda images: images)
    np.testing.assert_allclose(np.std(noised), 1, atol=0.05)
    for index in (int(np.argmin(time)), int(np.argmax(time))):
        share = np.sin(time[index] * np.pi / 2)
        expected = np.sqrt(1 - share**2) * images[index] + share * noise[index]
        np.testing.assert_allclose(noised[index], expected, atol=1e-5)
    assert np.sort(time).tolist() == pytest.approx(np.sort(time)[0] + np.arange(64) / 64, abs=1e-5)
    nll, mse = DENOISING.figures(noise + 2, noise)
    np.testing.assert_allclose([nll, mse], np.outer([2, 4], np.ones(64)), rtol=1e-5)


def test_what_is_evaluated_with_schedule_free_are_the_averaged_parameters():
    settings = settings_of(Cell(QUICK.workloads[0], BY_NAME["Schedule-Free AdamW"], 0, 0, "validation"))
    dataset = load("digits_900", held_out="validation")
    with pytest.MonkeyPatch.context() as patch, jax.default_prng_impl("rbg"):
        patch.setitem(MODELS, "resnet4", Model(Linear))
        run = train(settings, dataset, mesh=first_device())
        epochs = [next(run), next(run)]
        with pytest.raises(StopIteration) as end:
            next(run)
    state = end.value.value
    x = jax.tree.map(lambda y, z: (y - 0.1 * z) / 0.9, state.params, state.opt_state.z)
    assert not np.allclose(jax.tree.leaves(x)[0], jax.tree.leaves(state.params)[0], atol=1e-6)
    options = {"shape": (8, 8, 1), "classes": 10, "dtype": np.float32, "rngs": nnx.Rngs(0)}
    model = nnx.merge(nnx.graphdef(Linear(**options)), x, state.model_state)
    model.eval()
    images, labels = dataset.held_out.load(np.arange(300), None)
    logits = model((images - np.float32(dataset.mean[0])) / np.float32(dataset.std[0]))
    right = float(np.mean(logits.argmax(axis=1) == labels))
    assert epochs[-1].held_out_metric == pytest.approx(right, abs=1e-6)


# Data.


def test_an_epoch_of_a_part_may_have_fewer_examples_than_there_are():
    split = Excerpt(Random(np.arange(10), np.arange(10)), 8, halved=False, per_epoch=3)
    assert len(split) == 3
    seen = [split.load(np.arange(3), (0, epoch))[0].tolist() for epoch in range(3)]
    assert seen == [[0, 1, 2], [3, 4, 5], [6, 7, 0]]


def table_of_r(columns, levels):
    """Returns an R file of a data frame: letters as a factor, and columns of numbers."""

    def header(kind, flags=0):
        return (kind | flags).to_bytes(4, "big")

    def text(word):
        return header(9, 0x40000) + len(word).to_bytes(4, "big") + word.encode()

    def symbol(word):
        return header(1) + text(word)

    def strings(words):
        return header(16) + len(words).to_bytes(4, "big") + b"".join(map(text, words))

    def pairs(items, flags=0x400):
        return b"".join(header(2, flags) + symbol(name) + value for name, value in items) + header(254)

    def vector(kind, values, dtype, flags=0):
        return header(kind, flags) + len(values).to_bytes(4, "big") + np.asarray(values, dtype).tobytes()

    attributes = pairs([("levels", strings(levels)), ("class", strings(["factor"]))])
    factor = vector(13, columns[0], ">i4", 0x300) + attributes
    numbers = [vector(14, values, ">f8") for values in columns[1:]]
    rows = vector(13, [-(2**31), -len(columns[0])], ">i4")
    names = strings([f"c{index}" for index in range(len(columns))])
    frame = header(19, 0x300) + len(columns).to_bytes(4, "big") + factor + b"".join(numbers)
    frame += pairs([("names", names), ("row.names", rows), ("class", strings(["data.frame"]))])
    return b"RDX2\nX\n" + bytes.fromhex("00000002 00040201 00020300") + pairs([("Table", frame)])


def test_the_letters_are_rows_of_numbers_and_the_last_are_the_test(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "LETTERS_TEST", 1)
    content = table_of_r([[2, 1, 2], [0.0, 3.0, 5.0], [1.0, 4.0, 6.0]], ["A", "B"])
    (tmp_path / arrays.LETTERS_FILE).write_bytes(content)
    found = arrays.letters(tmp_path)
    assert [part.tolist() for part in found["train"]] == [[[0, 1], [3, 4]], [1, 0]]
    assert [part.tolist() for part in found["test"]] == [[[5, 6]], [1]]


def test_a_package_of_tables_that_is_not_installed_is_named(tmp_path):
    with pytest.raises(DataError, match="`apt install r-cran-mlbench` brings it"):
        registry.prepare("letters", data_dir=tmp_path, source=tmp_path)


@pytest.mark.slow
def test_the_signals_are_those_that_the_code_of_their_authors_makes(tmp_path):
    dataset = load("mnist1d", data_dir=tmp_path)
    assert (len(dataset.train), len(dataset.held_out), dataset.shape) == (4000, 1000, (40, 1))
    signals, labels = dataset.train.load(np.arange(4000), None)
    np.testing.assert_allclose(signals[0, :3, 0], [-0.33200567, -0.47191037, -0.77869708], rtol=1e-5)
    assert (float(signals.mean()), float(signals.std())) == pytest.approx((0, 1), abs=0.01)
    assert np.bincount(labels).min() > 350


# Contestants.


def test_trials_are_halton_points_in_the_space_of_the_contestant():
    first, more = points(5), points(15)
    np.testing.assert_array_equal(first, more[:5])
    # Three studies: each has rates in every fifth, and all together in every fifteenth.
    assert sorted(np.floor(more[:15, 0] * 4).astype(int).tolist()).count(0) in (3, 4)
    for contestant in contestants():
        tried = np.array([hyperparameters(contestant, trial) for trial in range(15)])
        for values, (low, high) in zip(tried.T, contestant[3:5], strict=True):
            assert low <= values.min() < values.max() <= high
        unit = np.log(tried[:, 0] / contestant.learning_rate[0]) / np.log(100)
        np.testing.assert_allclose(unit, more[:, 0], atol=2e-3)


def test_all_spaces_have_one_size_and_one_middle():
    for one in contestants():
        (low, high), (least, most) = one.learning_rate, one.weight_decay
        assert (high / low, most / least) == pytest.approx((100, 1000))
        momentum = 10 if one.optimizer == "sgd_nesterov" else 1
        assert momentum * math.sqrt(low * high * least * most) == pytest.approx(1e-4, rel=0.1)


def test_only_schedule_free_has_another_schedule():
    schedules = {
        one.name: settings_of(Cell(workloads()[0], one, 0, 0, "test")).schedule for one in contestants()
    }
    assert {name for name, schedule in schedules.items() if schedule != "warmup_cosine"} == {
        "Schedule-Free AdamW"
    }
    assert schedules["Schedule-Free AdamW"] == "warmup_constant"


def test_a_contestant_is_a_row_of_a_file(tmp_path, monkeypatch):
    heading = (config.HERE / "contestants.csv").read_text(encoding="utf-8").splitlines()[0]
    (tmp_path / "contestants.csv").write_text(f"{heading}\nMine,lpsgdm,inf,inf,rms,,1e-3,1e-1,0.1,1,\n")
    monkeypatch.setattr(config, "HERE", tmp_path)
    contestants.cache_clear()
    try:
        (mine,) = contestants()
    finally:
        contestants.cache_clear()
    settings = settings_of(Cell(workloads()[0], mine, 3, 2, "test"))
    assert (settings.p, settings.p_final, settings.normalization, settings.anneal) == (
        *(math.inf, math.inf),
        *("rms", "step"),
    )
    assert (settings.seed, settings.held_out) == (2, "test")
    assert (settings.learning_rate, settings.weight_decay) == hyperparameters(mine, 3)


def test_a_contestant_of_an_unknown_optimizer_is_one_clear_line():
    unknown = BY_NAME["AdamW"]._replace(name="Mine", optimizer="adabelief")
    told = "optimizer of Mine in contestants.csv is 'adabelief', which is none of sgd, "
    with pytest.raises(SettingsError, match=told):
        settings_of(Cell(FULL.workloads[0], unknown, 0, 0, "validation"))


def test_no_run_is_there_twice():
    cells = suite.trial_cells(FULL)
    assert len({settings_of(cell) for cell in cells}) == len(workloads()) * len(contestants()) * 15
    seeds = [{0}, set(FULL.target_seeds), set(FULL.seeds), set(FULL.study_seeds)]
    assert sum(map(len, seeds)) == len(set.union(*seeds))


# Statistics.


def test_the_time_to_a_target_is_that_of_the_first_evaluation_that_reaches_it():
    assert evaluations_to([3.0, 2.0, 1.0, 2.5], 2.0, higher=False) == 2
    assert evaluations_to([0.1, 0.5, 0.4], 0.5, higher=True) == 2
    assert evaluations_to([0.1, math.nan], 0.5, higher=True) == INFINITE
    assert evaluations_to([math.nan, 1.0], 2.0, higher=False) == 2


TIMES = pd.DataFrame(
    {"A": [1.0, 2.0, INFINITE], "B": [2.0, 1.0, INFINITE], "C": [INFINITE, 6.0, INFINITE]},
    ["first", "second", "third"],
)


def test_a_profile_is_the_share_of_workloads_within_a_factor_of_the_best():
    shares = profile(TIMES, np.array([1.0, 2.0, 4.0]))
    np.testing.assert_allclose(shares.A, [1 / 3, 2 / 3, 2 / 3])
    np.testing.assert_allclose(shares.C, [0, 0, 0])


def test_the_score_is_the_area_below_the_profile():
    # A: 1 over all of [1, 4] on one workload, from 2 on the second, and nothing on the third.
    np.testing.assert_allclose(integral(TIMES), [(1 + 2 / 3) / 3, (1 + 2 / 3) / 3, 0])
    factors = np.linspace(1, 4, 3001)
    np.testing.assert_allclose(profile(TIMES, factors).mean(), integral(TIMES), atol=1e-3)


def runs_of(times):
    """Returns a row for each run, from lists of times by workload and contestant."""
    rows = [
        {"workload": workload, "contestant": contestant, "time": time}
        for (workload, contestant), values in times.items()
        for time in values
    ]
    return pd.DataFrame(rows)


def test_the_median_of_three_studies_survives_one_that_fails():
    runs = runs_of({("w", "A"): [0.5, INFINITE, 0.75], ("w", "B"): [0.5, INFINITE, INFINITE]})
    assert median_of(runs).loc["w"].tolist() == [0.75, INFINITE]


def test_the_ratio_is_a_geometric_mean_with_an_interval_around_it():
    runs = runs_of(
        {
            ("w", "AdamW"): [0.5, 0.5],
            ("w", "A"): [1.0, 1.0],
            ("v", "AdamW"): [1.0, 1.0],
            ("v", "A"): [0.25, INFINITE],
        }
    )
    found = ratio_to(runs, "AdamW")
    assert found.loc["AdamW"].tolist() == [1, 1, 1]
    # Twice as long on one; on the other the mean of a quarter and of four budgets.
    assert found.loc["A", "value"] == pytest.approx(math.sqrt(2 * math.sqrt(0.25 * profiles.NEVER)))
    # The lower end: the second workload drawn twice, and its shorter run three times of four.
    assert found.loc["A", "low"] == pytest.approx(0.25 ** (3 / 4) * profiles.NEVER ** (1 / 4))
    # The upper end: each workload once, and of the second only the run that never ends.
    assert found.loc["A", "high"] == pytest.approx(math.sqrt(2 * profiles.NEVER))
    # As one budget it counts less.
    assert ratio_to(runs, "AdamW", never=1).loc["A", "value"] == pytest.approx(math.sqrt(2 * math.sqrt(0.25)))


def test_a_score_is_the_integral_with_an_interval_around_it():
    times = {"A": [1.0, 1.0, 1.0], "B": [2.0, 2.0, INFINITE]}
    runs = runs_of({(workload, name): values for workload in "vw" for name, values in times.items()})
    # B is twice as slow as the best, or, where the infinite run is drawn twice, never there.
    assert score(runs).loc["A"].tolist() == [1, 1, 1]
    assert score(runs).loc["B"].tolist() == pytest.approx([2 / 3, 0, 2 / 3])
    assert score(runs, "A").loc["B"].tolist() == pytest.approx([-1 / 3, -1, -1 / 3])


def test_the_best_trial_is_the_fastest_and_among_equals_has_the_best_results():
    times = pd.DataFrame({"v": [0.5, 0.8, 0.8], "w": [INFINITE, 0.8, 0.8]}, [3, 5, 7])
    ranks = pd.DataFrame({"v": [1.0, 3.0, 2.0], "w": [3.0, 1.0, 1.5]}, [3, 5, 7])
    assert best_trial(times, ranks) == 7


def trials_of(loss):
    """Returns trials from results by workload and trial, of which those below 1 reach the target."""
    rows = [
        {"workload": workload, "trial": trial, "loss": x, "time": 0.5 if x < 1 else INFINITE}
        for workload, values in loss.items()
        for trial, x in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_without_tuning_a_trial_is_chosen_on_the_other_workloads():
    trials = trials_of({"u": [0.1, 0.5, 2.0], "v": [2.0, 0.6, 0.4], "w": [2.0, 0.5, 0.4]})
    # On v and w the third is best, on u and w as on u and v only the second reaches both.
    assert [suite.untuned(trials, name) for name in "uvw"] == [2, 1, 1]


def test_tuned_a_trial_is_chosen_in_each_study_on_the_workload_itself():
    trials = trials_of({"u": [0.1, 0.5, 2.0, 3.0, 2.5, math.inf], "v": [3.0] * 6})
    assert suite.tuned(trials, "u", 2) == [0, 2, 4]
    assert suite.tuned(trials, "u", 3) == [0, 4]


def test_a_diverged_run_is_the_worst_and_high_is_best_where_answers_are_right():
    images, text = workloads()[0], workloads()[4]
    assert losses(images, np.array([0.5, math.nan])).tolist() == [-0.5, INFINITE]
    assert losses(text, np.array([0.5, math.nan])).tolist() == [0.5, INFINITE]


def test_a_run_without_finite_loss_has_no_result_whatever_it_got_right():
    epochs = [{"epoch": epoch, "held_out_top1": 0.09} for epoch in range(1, 17)]
    settings = settings_of(Cell(workloads()[0], BY_NAME["AdamW"], 0, 0, "validation"))
    for nll in (2.0, math.nan, INFINITE):
        values = suite_targets.curve(
            Run(settings, {}, {}, [*epochs[:-1], {**epochs[-1], "held_out_nll": nll}])
        )
        assert math.isfinite(values[-1]) == math.isfinite(nll)


def test_trials_are_compared_one_by_one_where_two_contestants_share_a_space():
    one, other = "Schatten SGDM, p 12 → 2", "Schatten SGDM, p ∞"
    pair = QUICK._replace(contestants=[BY_NAME[one], BY_NAME[other]])
    rows = [
        {"workload": workload.name, "trial": trial, "contestant": name, "loss": loss}
        for workload in QUICK.workloads
        for name, losses in ((one, (1.0, 2.0)), (other, (2.0, INFINITE)))
        for trial, loss in enumerate(losses)
    ]
    found = suite_report.trial_by_trial(pair, pd.DataFrame(rows))
    assert found.to_numpy().tolist() == [[f"{one} against {other}", "4 of 4", "2 of 2", "2 of 2"]]


def test_trials_at_the_target_are_counted_and_the_place_of_the_best_rate_is_told_if_there_is_one():
    rows = [
        {"workload": workload, "trial": trial, "contestant": "A", "loss": loss, "time": loss}
        for workload, losses in (("v", (2.0, 1.0)), ("w", (INFINITE, INFINITE)))
        for trial, loss in enumerate(losses)
    ]
    found = suite_report.trials_table(pd.DataFrame(rows))
    assert found.to_numpy().tolist() == [["A", "2 of 4", "1 of 2", f"{points(2)[1, 0]:.2f}", "-"]]


def test_the_cost_of_a_step_counts_less_the_longer_gradients_take():
    times = pd.DataFrame({"step": ["AdamW", "Lion"], "/ AdamW": [1.0, 4.0]})
    some = [BY_NAME[name] for name in ("AdamW", "Lion")]
    assert suite_report.step_costs(some, 1, times) == pytest.approx({"AdamW": 1, "Lion": 2.5})
    assert suite_report.step_costs(some, 9, times) == pytest.approx({"AdamW": 1, "Lion": 1.3})
    untimed = some[1]._replace(name="Mine", timed_as="")
    assert math.isnan(suite_report.step_costs([untimed], 1, times)["Mine"])


def test_the_state_is_measured_in_bytes_for_each_parameter():
    found = {name: suite_report.state_bytes(BY_NAME[name], FULL) for name in ("AdamW", "Lion")}
    assert found == pytest.approx({"AdamW": 8, "Lion": 4}, abs=0.01)


def test_a_pair_is_compared_by_its_steps_and_by_the_results_of_each_workload():
    first, second = (workload.name for workload in QUICK.workloads)
    lpsgdm = "LPSGDM at unit RMS, p 12 → 2"
    results = {(first, "AdamW"): 0.5, (first, lpsgdm): 0.7, (second, "AdamW"): 0.6, (second, lpsgdm): 0.5}
    rows = [
        {"workload": workload, "contestant": name, "time": 0.5 if name == "AdamW" else 0.25, "result": result}
        for (workload, name), result in results.items()
        for _ in range(2)
    ]
    found = suite_report.differences_table(QUICK, pd.DataFrame(rows))
    # Of the pairs only this one is there; without a spread the intervals are points.
    half = "0.50 (0.50 to 0.50)"
    row = [f"{lpsgdm} against AdamW", "0.33 (0.33 to 0.33)", half, "+20.00 to +20.00", "-10.00 to -10.00"]
    assert found.to_numpy().tolist() == [row]


# The whole.


def test_without_targets_no_contestant_runs(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["suite", "--output", str(tmp_path)])
    told = capsys.readouterr().err
    assert "targets.csv is missing: `python -m benchmarks suite_targets --output" in told
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_workload_without_a_target_is_named(tmp_path):
    (tmp_path / suite_targets.TARGETS).write_text("workload,validation,test\nResNet on images,0.5,0.5\n")
    with pytest.raises(SettingsError, match="has no target for Autoencoder of images"):
        suite.run(False, tmp_path)


@pytest.mark.slow
def test_the_suite_continues_and_repeats_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "resnet4", Model(Linear))
    command = ["suite", "--quick", "--output", str(tmp_path)]
    assert main(command) == 0
    files = {"runs", "table.md", "targets.csv", "trials.csv", "tests.csv", "no_tuning.png", "tuned.png"}
    assert {path.name for path in tmp_path.iterdir()} == files
    page = (tmp_path / "table.md").read_text()
    assert "## No tuning" in page
    assert "## Tuned" in page
    targets = pd.read_csv(tmp_path / "targets.csv")
    assert targets.workload.tolist() == [workload.name for workload in QUICK.workloads]
    runs = read(tmp_path / "runs")
    assert all(run.finished for run in runs)
    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "runs").iterdir()}
    assert main(command) == 0
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "runs").iterdir()} == written
    assert (tmp_path / "table.md").read_text() == page


# What is committed.

COMMITTED = ROOT / "benchmarks" / "results" / "suite"


@pytest.mark.slow
def test_the_committed_tables_are_those_of_the_committed_records(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a record is missing")

    monkeypatch.setattr(runner, "sweep", refuse)
    shutil.copytree(COMMITTED / "runs", tmp_path / "runs")
    shutil.copy(COMMITTED / suite_targets.TARGETS, tmp_path)
    assert main(["suite", "--output", str(tmp_path)]) == 0
    for name in ("table.md", "trials.csv", "tests.csv"):
        # The end tells with what the page was made.
        made, committed = (
            (of / name).read_text().split("\nMeasured with")[0] for of in (tmp_path, COMMITTED)
        )
        assert made == committed, name


def rows_of(text, heading):
    """Returns the first table below a heading, as cells by their columns, by the first cell."""
    lines = text.split(f"## {heading}\n")[1].split("## ")[0].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    table = [line.strip("| ").split(" | ") for line in itertools.takewhile(bool, lines[start:])]
    return {row[0]: dict(zip(table[0], row, strict=True)) for row in table[2:]}


def test_readme_and_site_show_what_was_measured():
    tracks = [rows_of((COMMITTED / "table.md").read_text(), track) for track in ("No tuning", "Tuned")]
    page = (ROOT / "docs" / "reproducing" / "suite.md").read_text()
    assert [rows_of(page, "No tuning"), rows_of(page, "Tuned")] == tracks
    results = rows_of((COMMITTED / "table.md").read_text(), "Results at the end, without tuning")
    assert rows_of(page, "Results at the end") == results
    readme = (ROOT / "README.md").read_text()
    for name, row in rows_of(readme, "Should I use this instead of AdamW or Muon?").items():
        first, second = (track[name] for track in tracks)
        shown = [name, first["score"], first["targets reached"], first["steps / AdamW's"]]
        assert list(row.values()) == [*shown, second["score"], second["targets reached"], first["state"]]


def test_the_recipe_is_rounded_what_the_suite_chose():
    tested = pd.read_csv(COMMITTED / "tests.csv")
    ours = tested[(tested.track == "No tuning") & (tested.contestant == "Schatten SGDM, p ∞")]
    rate, decay = ours[["learning_rate", "weight_decay"]].value_counts().index[0]
    for page in ("README.md", "docs/start/quickstart.md", "docs/start/choosing.md"):
        text = (ROOT / page).read_text()
        assert f"schedule(0.0, {rate:.1g}," in text
        assert f"weight_decay={decay:.1g}" in text
