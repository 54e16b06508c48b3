"""Which runs are selected: the papers' presets, what overrides them, labels and schedules."""

import dataclasses
import json
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.config import settings as settings_module
from benchmarks.config.labels import label, p_text
from benchmarks.config.matrices import MATRICES
from benchmarks.config.optimizers import OPTIMIZERS
from benchmarks.config.schedules import build_optimizer, schedules, swept, without_swept
from benchmarks.config.selection import select
from benchmarks.config.settings import PAPERS, PRESETS, Settings, SettingsError, presets
from benchmarks.models.registry import MODELS

# Only what decides: paper, dataset, model and optimizer; some have a row for each of several p.
LINES = PRESETS.read_text(encoding="utf-8").splitlines()[1:]
ROWS = list(dict.fromkeys(tuple(line.split(",")[:4]) for line in LINES))
CIFAR = ("cifar10", "resnet18")


def one(dataset, model, optimizer, overrides=None, **options):
    """Returns the only run that is selected for seed 0."""
    (run,) = select(dataset, model, [optimizer], [0], overrides or {}, **options)
    return run


def refusal(*arguments, **options):
    with pytest.raises(SettingsError) as error:
        select(*arguments, **options)
    (line,) = str(error.value).splitlines()
    return line


@pytest.mark.parametrize(("paper", "dataset", "model", "optimizer"), ROWS, ids=map("-".join, ROWS))
def test_every_preset_is_a_run(paper, dataset, model, optimizer):
    assert paper in PAPERS
    assert model in MODELS
    runs = select(dataset, model, [optimizer], [0], {}, paper=paper)
    assert len(runs) == sum(line.startswith(f"{paper},{dataset},{model},{optimizer},") for line in LINES)
    for run in runs:
        assert (run.dataset, run.model, run.optimizer) == (dataset, model, optimizer)
        # A hyperparameter that a row gives and the optimizer does not take would be forgotten.
        own = {"p", "anneal", "b1", "b2", "eps", "alpha", "tau"}
        taken = {name for name, value in OPTIMIZERS[optimizer].takes.items() if value is not None}
        assert {name for name in own if getattr(run, name) is not None} == taken
        params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
        built = build_optimizer(run, 10_000)
        updates, _ = built.update(params, built.init(params), params)
        assert updates.keys() == params.keys()


@pytest.mark.parametrize(
    ("paper", "optimizer", "expected"),
    [
        (
            "lpsgdm",
            "lpsgdm",
            Settings(*CIFAR, "lpsgdm", 128, 200, 0.001, 0.01, p=6.0, b1=0.9, eps=1e-8, anneal="epoch"),
        ),
        (
            "lpsgdm",
            "sgdm",
            Settings(*CIFAR, "sgdm", 128, 200, 0.1, 0.001, b1=0.9, schedule="warmup_cosine"),
        ),
        (
            "stacey",
            "stacey_2p",
            Settings(
                *CIFAR,
                "stacey_2p",
                128,
                200,
                0.02,
                0.4,
                p=3.5,
                b1=0.9,
                b2=0.99,
                eps=1e-8,
                alpha=0.01,
                tau=0.001,
            ),
        ),
    ],
)
def test_presets_are_those_of_the_papers(paper, optimizer, expected):
    assert one(*CIFAR, optimizer, paper=paper) == expected


def test_imagenet_is_warmed_up_for_as_long_as_in_the_paper():
    run = one("imagenet2012", "resnet50", "stacey_p2")
    assert (run.p, run.learning_rate, run.weight_decay) == (2.8, 0.01, 0.0005)
    assert (run.batch_size, run.epochs, run.warmup_steps) == (256, 90, 10_000)


def test_a_constant_learning_rate_has_no_warm_up():
    constant = {"schedule": ["constant"]}
    assert one("imagenet2012", "resnet50", "stacey_p2", constant).warmup_steps is None
    both = constant | {"warmup_steps": [5]}
    line = refusal(*CIFAR, ["sgdm"], [0], both)
    assert line == "--warmup-steps has no effect on --schedule constant"


def test_a_paper_can_be_chosen():
    first, stacey = one(*CIFAR, "adamw"), one(*CIFAR, "adamw", paper="stacey")
    assert (first.learning_rate, first.weight_decay) == (0.001, 0.1)
    assert (stacey.learning_rate, stacey.weight_decay) == (0.01, 0.0005)
    assert one(*CIFAR, "adamw", paper="lpsgdm") == first


def test_a_paper_without_the_row_has_no_preset():
    assert refusal(*CIFAR, ["stacey_p2"], [0], {}, paper="lpsgdm") == (
        "--paper lpsgdm has no preset for stacey_p2 with resnet18 on cifar10"
    )


def test_a_missing_preset_names_what_is_still_missing():
    assert refusal("digits", "vgg11", ["sgdm"], [0], {"epochs": [3]}) == (
        "there is no preset for sgdm with vgg11 on digits: name --batch-size, --learning-rate"
    )
    run = one("digits", "vgg11", "sgdm", {"epochs": [3], "batch_size": [8], "learning_rate": [0.5]})
    assert run == Settings("digits", "vgg11", "sgdm", 8, 3, 0.5, b1=0.9)


def test_what_is_named_overrides_the_preset():
    overrides = {"learning_rate": [0.5], "b1": [0.7], "dtype": ["bfloat16"], "epochs": [2]}
    changed = dataclasses.replace(
        one(*CIFAR, "lpsgdm"), learning_rate=0.5, b1=0.7, dtype="bfloat16", epochs=2
    )
    assert one(*CIFAR, "lpsgdm", overrides) == changed


def test_every_combination_of_optimizers_values_and_seeds_is_a_run():
    overrides = {"learning_rate": [0.5, 0.25], "weight_decay": [0.0, 0.125]}
    runs = select(*CIFAR, ["sgdm", "lion"], [4, 2], overrides)
    assert [(run.optimizer, run.learning_rate, run.weight_decay, run.seed) for run in runs] == [
        (optimizer, rate, decay, seed)
        for optimizer in ("sgdm", "lion")
        for rate in (0.5, 0.25)
        for decay in (0.0, 0.125)
        for seed in (4, 2)
    ]
    assert select(*CIFAR, ["sgdm", "sgdm"], [0, 0], {}) == [one(*CIFAR, "sgdm")]


def test_a_hyperparameter_goes_to_the_optimizers_that_take_it():
    sgdm, lpsgdm = select(*CIFAR, ["sgdm", "lpsgdm"], [0], {"p": [4.0]})
    assert sgdm == one(*CIFAR, "sgdm")
    assert lpsgdm == dataclasses.replace(one(*CIFAR, "lpsgdm"), p=4.0)


def test_a_hyperparameter_that_none_takes_is_refused():
    assert refusal(*CIFAR, ["sgdm", "lion"], [0], {"alpha": [0.1]}) == ("--alpha has no effect on sgdm, lion")


def test_what_the_optimizer_refuses_is_one_line():
    assert refusal(*CIFAR, ["lpsgdm"], [0], {"p": [0.5]}).startswith("lpsgdm: ")
    assert refusal(*CIFAR, ["stacey_pp"], [0], {"p": [1.0]}).startswith("stacey_pp: ")


def test_each_p_takes_its_own_preset(monkeypatch, tmp_path):
    file = tmp_path / "presets.csv"
    header = PRESETS.read_text(encoding="utf-8").splitlines()[0]
    names = header.split(",")

    def row(**values):
        return ",".join(values.get(name, "") for name in names)

    same = {"paper": "lpsgdm", "dataset": "d", "model": "m", "optimizer": "lpsgdm", "batch_size": "8"}
    rows = [row(**same, epochs="3", p=p, learning_rate=rate) for p, rate in (("3", "0.3"), ("6", "0.6"))]
    file.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    monkeypatch.setattr(settings_module, "PRESETS", file)

    def chosen(**overrides):
        return [(run.p, run.learning_rate) for run in select("d", "m", ["lpsgdm"], [0], overrides)]

    assert chosen() == [(3, 0.3), (6, 0.6)]
    assert chosen(p=[6.0, 3.0]) == [(6, 0.6), (3, 0.3)]
    # One without a preset takes all else from the first.
    assert chosen(p=[4.0]) == [(4, 0.3)]
    assert chosen(p=[6.0], learning_rate=[1.0]) == [(6, 1)]


def test_presets_leave_out_what_the_paper_does_not_tell():
    (found,) = presets(*CIFAR, "stacey_p2")
    assert "schedule" not in found
    assert "paper" not in found
    assert (type(found["batch_size"]), type(found["learning_rate"])) == (int, float)


@pytest.mark.parametrize(
    ("optimizer", "p", "name", "shown"),
    [
        ("sgdm", None, "SGD with momentum", "2"),
        ("adamw", None, "AdamW", "none"),
        ("lion", None, "Lion", "∞"),
        ("gsgd", None, "GSGD", "∞ → 2"),
        ("lpsgdm", 6.0, "LPSGDM, p 6 → 2", "6 → 2"),
        ("stacey_p2", 2.5, "STACEY(2.5,2)", "2.5"),
        ("stacey_pp", 3.0, "STACEY(3,3)", "3"),
        ("stacey_2p", 3.0, "STACEY(2,3)", "3"),
    ],
)
def test_labels_tell_p(optimizer, p, name, shown):
    run = one(*CIFAR, optimizer, {"epochs": [1], "batch_size": [8], "learning_rate": [1.0]})
    run = dataclasses.replace(run, p=p)
    assert (label(run), p_text(run)) == (name, shown)


@pytest.mark.parametrize(
    ("changes", "name", "shown"),
    [
        ({"normalization": "rms"}, "LPSGDM at unit RMS, p 6 → 2", "6 → 2"),
        (
            {"normalization": "dual_norm", "per_leaf": True},
            "LPSGDM with the dual norm of each leaf, p 6 → 2",
            "6 → 2",
        ),
        ({"p_final": 3.0}, "LPSGDM, p 6 → 3", "6 → 3"),
        ({"p_final": 6.0}, "LPSGDM, p 6", "6"),
        ({"p": math.inf, "p_final": math.inf}, "LPSGDM, p ∞", "∞"),
        ({"p": 3.0, "p_final": math.inf}, "LPSGDM, p 3 → ∞", "3 → ∞"),
    ],
)
def test_labels_tell_the_length_of_a_step_and_the_last_p(changes, name, shown):
    run = dataclasses.replace(one(*CIFAR, "lpsgdm"), **changes)
    assert label(run) == name
    assert p_text(run) == shown


STEPS, EPOCHS = 10, 6  # steps of an epoch, and epochs.


def values(schedule):
    return np.array([float(schedule(step)) for step in range(STEPS * EPOCHS)])


def scheduled(optimizer, **changes):
    run = one(*CIFAR, optimizer, {"epochs": [EPOCHS], "batch_size": [8], "learning_rate": [0.5]})
    return schedules(dataclasses.replace(run, **changes), STEPS)


def test_p_falls_once_an_epoch_as_a_cosine_from_p_to_2():
    epochs = np.arange(EPOCHS)
    expected = 2 + (9 - 2) * (1 + np.cos(np.pi * epochs / (EPOCHS - 1))) / 2
    p = values(scheduled("lpsgdm", p=9.0).p).reshape(EPOCHS, STEPS)
    # Float32, relative to p.
    np.testing.assert_allclose(p, np.tile(expected[:, None], STEPS), rtol=1e-6)


def test_p_may_fall_each_step():
    steps = np.arange(STEPS * EPOCHS)
    expected = 2 + (9 - 2) * (1 + np.cos(np.pi * steps / (STEPS * EPOCHS - 1))) / 2
    p = values(scheduled("lpsgdm", p=9.0, anneal="step").p)
    np.testing.assert_allclose(p, expected, rtol=1e-6)


def test_p_may_end_elsewhere_or_stay():
    falling = values(scheduled("lpsgdm", p=9.0, p_final=3.0).p)
    assert (falling[0], falling[-1]) == (9.0, 3.0)
    assert scheduled("lpsgdm", p=math.inf, p_final=math.inf).p == math.inf


def test_p_may_rise_if_it_is_told_where_to():
    steps = np.arange(STEPS * EPOCHS)
    weight = (1 + np.cos(np.pi * steps / (STEPS * EPOCHS - 1))) / 2
    p = values(scheduled("schatten_sgdm", p=3.0, p_final=math.inf, anneal="step").p)
    np.testing.assert_allclose(1 / (p - 1), weight / 2, rtol=1e-5, atol=1e-7)
    assert p[-1] == math.inf


def test_p_of_gsgd_falls_each_step_from_infinity():
    steps = np.arange(1, STEPS * EPOCHS)
    p = values(scheduled("gsgd").p)
    assert math.isinf(p[0])
    np.testing.assert_allclose(p[1:], 1 + STEPS * EPOCHS / steps, rtol=1e-6)


@pytest.mark.parametrize(("optimizer", "p"), [("stacey_pp", 3.0), ("sgdm", 2.0), ("lion", math.inf)])
def test_other_optimizers_keep_p(optimizer, p):
    assert scheduled(optimizer, **({"p": p} if optimizer == "stacey_pp" else {})).p == p


def test_adam_has_no_p():
    assert scheduled("adam").p is None


@pytest.mark.parametrize(("named", "warmup"), [(None, STEPS * EPOCHS // 20), (12, 12)])
def test_the_learning_rate_rises_then_falls_to_0_as_a_cosine(named, warmup):
    schedule = scheduled("sgdm", warmup_steps=named).learning_rate
    steps = np.arange(STEPS * EPOCHS)
    falling = (1 + np.cos(np.pi * (steps - warmup) / (STEPS * EPOCHS - warmup))) / 2
    expected = 0.5 * np.where(steps < warmup, steps / warmup, falling)
    # The cosine of a float32 near pi: absolute errors of 0.5 float32 roundings.
    np.testing.assert_allclose(values(schedule), expected, rtol=1e-6, atol=1e-7)
    assert schedule(STEPS * EPOCHS) == pytest.approx(0, abs=1e-7)


def test_the_learning_rate_can_rise_and_stay():
    rates = values(scheduled("sgdm", schedule="warmup_constant", warmup_steps=12).learning_rate)
    np.testing.assert_allclose(rates, 0.5 * np.minimum(np.arange(STEPS * EPOCHS) / 12, 1), rtol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_traced_weight_decay_is_that_of_the_settings(name):
    run = one(*CIFAR, name, {"epochs": [1], "batch_size": [8], "learning_rate": [0.1], "weight_decay": [0.5]})
    run = dataclasses.replace(run, schedule="constant")
    params, zeros = {"w": jnp.ones((2, 3))}, {"w": jnp.zeros((2, 3))}

    def update(settings, traced=None):
        optimizer = build_optimizer(settings, 10, traced)
        return optimizer.update(zeros, optimizer.init(params), params)[0]["w"]

    found = jax.jit(partial(update, without_swept(run)))(jax.tree.map(jnp.asarray, swept(run)))
    np.testing.assert_allclose(found, update(run), rtol=1e-5)


def test_the_learning_rate_can_be_constant():
    assert set(values(scheduled("sgdm", schedule="constant").learning_rate)) == {0.5}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_takes_its_first_step_down(name):
    run = one(*CIFAR, name, {"epochs": [1], "batch_size": [8], "learning_rate": [0.1], "weight_decay": [0.0]})
    optimizer = build_optimizer(dataclasses.replace(run, schedule="constant"), 10)
    params, g = {"w": jnp.ones((2, 3))}, {"w": jnp.full((2, 3), 2.0).at[0].set(-2.0)}
    updates, _ = optimizer.update(g, optimizer.init(params), params)
    assert jnp.all(jnp.sign(updates["w"]) == -jnp.sign(g["w"]))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_leaves_biases_and_scales_if_only_kernels_decay(name):
    run = one(*CIFAR, name, {"epochs": [1], "batch_size": [8], "learning_rate": [0.1], "weight_decay": [0.5]})
    params = {"kernel": jnp.ones((2, 3)), "scale": jnp.ones(3)}
    zeros = optax.tree.zeros_like(params)

    def updates(decay):
        optimizer = build_optimizer(dataclasses.replace(run, schedule="constant", decay=decay), 10)
        return optimizer.update(zeros, optimizer.init(params), params)[0]

    everything, kernels = updates("all"), updates("kernels")
    assert jnp.all(everything["kernel"] < 0)
    assert jnp.all(everything["scale"] < 0)
    np.testing.assert_array_equal(kernels["kernel"], everything["kernel"])
    # Schedule-Free finds its average again from what it steps to, with rounding.
    np.testing.assert_allclose(kernels["scale"], 0, atol=2e-7 if name == "schedule_free_adamw" else 0)


@pytest.mark.parametrize("name", ["lpsgd", "lpsgdm", "gsgd"])
@pytest.mark.parametrize("per_leaf", [None, True])
def test_the_length_of_a_step_is_that_of_its_setting(name, per_leaf):
    run = one(*CIFAR, name, {"epochs": [1], "batch_size": [8], "learning_rate": [0.1], "weight_decay": [0.0]})
    run = dataclasses.replace(run, schedule="constant", normalization="rms", per_leaf=per_leaf)
    g = {"w": jnp.array([3.0, -1.0]), "b": jnp.array([1e-3, 2e-3, 0.0])}
    optimizer = build_optimizer(run, 10)
    updates, _ = optimizer.update(g, optimizer.init(g), g)
    vectors = updates.values() if per_leaf else [jnp.concatenate(list(updates.values()))]
    for vector in vectors:
        assert float(jnp.sqrt(jnp.mean(vector**2))) == pytest.approx(0.1, rel=1e-5)


def test_settings_survive_as_plain_data():
    run = dataclasses.replace(one(*CIFAR, "lpsgdm"), p=math.inf, p_final=math.inf, normalization="rms")
    assert Settings.of(json.loads(json.dumps(run.plain(), allow_nan=False))) == run


@pytest.mark.parametrize(("optimizer", "shared"), [("lpsgdm", True), ("stacey_pp", False)])
def test_runs_over_seeds_rates_and_an_annealed_p_share_what_is_compiled(optimizer, shared):
    run = one(*CIFAR, optimizer)
    same = without_swept(run)
    assert without_swept(dataclasses.replace(run, seed=1, learning_rate=0.7)) == same
    assert (without_swept(dataclasses.replace(run, p=4.5)) == same) == shared
    decayed = [without_swept(dataclasses.replace(run, weight_decay=decay)) for decay in (0.5, 0.25, 0.0)]
    assert decayed[0] == decayed[1] != decayed[2]
    assert without_swept(dataclasses.replace(run, b1=0.8)) != same


@pytest.mark.parametrize(("p", "p_final"), [(3.0, 2.0), (3.0, 8.0), (3.0, math.inf), (math.inf, math.inf)])
def test_a_traced_rate_and_p_are_those_of_the_settings(p, p_final):
    run = dataclasses.replace(one(*CIFAR, "lpsgdm"), p=p, p_final=p_final)

    @jax.jit
    def at(step, traced):
        changing = schedules(run, STEPS, traced)
        return changing.learning_rate(step), changing.p(step)

    concrete = schedules(run, STEPS)
    for step in (0, 3, STEPS * EPOCHS - 1):
        expected = concrete.learning_rate(step), concrete.p(step) if callable(concrete.p) else concrete.p
        np.testing.assert_allclose(at(step, swept(run)), expected, rtol=1e-6)


def test_the_matrices_of_a_network_are_its_hidden_kernels_or_all():
    params = {
        "stem": {"kernel": jnp.zeros((3, 3, 1, 4))},
        "block": {"kernel": jnp.zeros((3, 3, 4, 8)), "bias": jnp.zeros(8)},
        "head": {"kernel": jnp.zeros((8, 2))},
    }
    hidden, everything = (MATRICES[name](params) for name in ("hidden", "all"))
    assert everything["block"] == {"kernel": ((0, 1, 2), 3), "bias": None}
    assert (everything["stem"]["kernel"], everything["head"]["kernel"]) == (((0, 1, 2), 3), ((0,), 1))
    assert hidden["block"] == everything["block"]
    assert (hidden["stem"]["kernel"], hidden["head"]["kernel"]) == (None, None)
