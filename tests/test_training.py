"""The training loop: against formulas in float64, on many devices, and without waiting."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax._src.array import ArrayImpl
from jax.sharding import AxisType

from benchmarks.config.settings import Settings, SettingsError
from benchmarks.data.batches import training_batches
from benchmarks.data.registry import Dataset, load
from benchmarks.models.registry import MODELS, Model
from benchmarks.models.vision import Convolution, Layers, ResNet, basic
from benchmarks.training import loop as training
from benchmarks.training import step as program
from benchmarks.training.loop import check, train
from tests import reference_models
from tests.reference_models import EPSILON, nll

SGD = Settings("digits", "linear", "sgd", 48, 2, 0.1, 0.05, schedule="constant", seed=3)
RESNET = Settings("digits", "resnet6", "sgdm", 48, 1, 0.05, b1=0.9)


class Part:
    """The first images of a split."""

    def __init__(self, split, size):
        """Takes the first `size` images."""
        self.split, self.size = split, size

    def __len__(self):
        """Returns the number of images."""
        return self.size

    def load(self, indices, seed):
        """Returns images and labels."""
        assert np.all(indices < self.size)
        return self.split.load(indices, seed)


def digits(size=150, held_out_size=110):
    """Returns a dataset of three batches of 48 and a rest, held out two and a rest."""
    dataset = load("digits", held_out="test")
    return dataset._replace(
        train=Part(dataset.train, size), held_out=Part(dataset.held_out, held_out_size), augment=None
    )


def arrays(split):
    images, labels = split.load(np.arange(len(split)), None)
    return images.astype(np.float64), labels


def mesh_of(count):
    return jax.make_mesh((count,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])


def finish(run):
    """Returns the epochs that a run yields, and its state."""
    epochs = []
    while True:
        try:
            epochs.append(next(run))
        except StopIteration as end:
            return epochs, end.value


def run_alone(settings, dataset, **options):
    # The default generator takes five times as long to compile.
    with jax.default_prng_impl("rbg"):
        return finish(train(settings, dataset, mesh=mesh_of(1), **options))


class Linear(nnx.Module):
    """Softmax regression on normalised pixels: small enough to write its gradient down."""

    def __init__(self, *, shape, classes, dtype, rngs):
        """Makes the layers for images of 8 x 8."""
        layers = Layers(dtype, rngs)
        self.norm, self.head = layers.norm(64 * shape[-1]), layers.linear(64 * shape[-1], classes)

    def __call__(self, x):
        """Maps images to logits."""
        return self.head(self.norm(x.reshape(len(x), -1)))


def resnet6(**options):
    """Returns a ResNet-8 without its last stage, for it compiles sooner."""
    return ResNet(basic, [(8, 1), (16, 1)], Convolution(8, 3), pool=False, **options)


@pytest.fixture(autouse=True, scope="module")
def _models():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "linear", Model(Linear))
        patch.setitem(MODELS, "resnet6", Model(resnet6))
        yield


def variables(state):
    """Returns parameters and batch statistics as dictionaries in float64."""

    def plain(tree):
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), nnx.to_pure_dict(tree))

    return plain(state.params), plain(nnx.filter_state(state.model_state, nnx.BatchStat))


def rows(images, dataset):
    return ((images - np.array(dataset.mean)) / np.array(dataset.std)).reshape(len(images), -1)


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def linear_step(params, seen, x, labels, settings):
    """Takes a step of SGD with coupled decay, in place; returns loss and share of right answers before it."""
    norm, head = params["norm"], params["head"]
    mean, var = x.mean(axis=0), x.var(axis=0)
    scaled = (x - mean) / np.sqrt(var + EPSILON)
    inner = scaled * norm["scale"] + norm["bias"]
    logits = inner @ head["kernel"] + head["bias"]
    error = (softmax(logits) - np.eye(10)[labels]) / len(x)
    inner_error = error @ head["kernel"].T
    gradients = {
        ("head", "kernel"): inner.T @ error,
        ("head", "bias"): error.sum(axis=0),
        ("norm", "scale"): (inner_error * scaled).sum(axis=0),
        ("norm", "bias"): inner_error.sum(axis=0),
    }
    for (layer, name), g in gradients.items():
        decays = settings.decay == "all" or name == "kernel"
        decay = settings.weight_decay * params[layer][name] if decays else 0
        params[layer][name] = params[layer][name] - settings.learning_rate * (g + decay)
    seen["norm"] = {
        "mean": 0.9 * seen["norm"]["mean"] + 0.1 * mean,
        "var": 0.9 * seen["norm"]["var"] + 0.1 * var,
    }
    return nll(logits, labels).mean(), np.mean(logits.argmax(axis=1) == labels)


def linear_evaluation(params, seen, dataset):
    images, labels = arrays(dataset.held_out)
    inner = reference_models.norm(rows(images, dataset), params["norm"], seen["norm"])
    logits = inner @ params["head"]["kernel"] + params["head"]["bias"]
    return nll(logits, labels).mean(), np.mean(logits.argmax(axis=1) == labels)


def measured(epoch):
    return epoch[:4]


@pytest.mark.parametrize("decay", ["all", "kernels"])
def test_training_follows_the_formulas_in_float64(decay):
    settings, dataset = dataclasses.replace(SGD, decay=decay), digits()
    epochs, state = run_alone(settings, dataset)
    with jax.default_prng_impl("rbg"):
        _, start = program.start(settings, dataset, mesh_of(1))
    params, seen = variables(start)
    batches = training_batches(dataset.train, 48, mesh_of(1), seed=settings.seed, start=0, stop=6)
    for epoch in epochs:
        # Three whole batches: means over them are means over their images.
        losses = []
        for _ in range(3):
            batch = next(batches)
            x = rows(np.asarray(batch.inputs, np.float64), dataset)
            losses.append(linear_step(params, seen, x, np.asarray(batch.labels), settings))
        expected = *np.mean(losses, axis=0), *linear_evaluation(params, seen, dataset)
        # Six float32 steps, whose means of black pixels are off by 1e-8, over their deviation of 3e-3.
        np.testing.assert_allclose(measured(epoch), expected, rtol=2e-5)
    for ours, theirs in zip(variables(state), (params, seen), strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), ours, theirs)


def test_only_kernels_decay_if_asked():
    kept, decayed = (
        run_alone(dataclasses.replace(SGD, decay=decay, weight_decay=0.5), digits())[1].params
        for decay in ("kernels", "all")
    )
    alone = run_alone(dataclasses.replace(SGD, weight_decay=0.0), digits())[1].params
    # A pixel that is black in all images has no gradient, so that its scale shows the decay alone.
    black = np.all(arrays(digits().train)[0] == 0, axis=0).ravel()
    assert black.any()
    np.testing.assert_allclose(alone["norm"]["scale"][black], 1, rtol=1e-4)
    np.testing.assert_allclose(kept["norm"]["scale"][black], 1, rtol=1e-4)
    np.testing.assert_allclose(decayed["norm"]["scale"][black], (1 - 0.1 * 0.5) ** 6, rtol=1e-4)
    assert np.linalg.norm(kept["head"]["kernel"]) < 0.9 * np.linalg.norm(alone["head"]["kernel"])


def test_bfloat16_keeps_float32_state_and_is_evaluated_in_float32():
    settings, dataset = (
        dataclasses.replace(SGD, optimizer="sgdm", b1=0.9, epochs=1, dtype="bfloat16"),
        digits(),
    )
    (epoch,), state = run_alone(settings, dataset)
    (exact,), _ = run_alone(dataclasses.replace(settings, dtype="float32"), dataset)
    leaves = jax.tree.leaves((state.params, state.opt_state, state.model_state, state.totals))
    assert {leaf.dtype for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)} == {jnp.float32.dtype}
    # It does train in bfloat16, whose rounding error is 4e-3...
    assert 1e-5 < abs(epoch.train_nll / exact.train_nll - 1) < 1e-2
    # ... but its measurements are those of a float32 model with these parameters.
    expected = linear_evaluation(*variables(state), dataset)
    np.testing.assert_allclose([epoch.held_out_nll, epoch.held_out_metric], expected, rtol=1e-6)


@pytest.fixture(scope="module")
def runs_of_resnet():
    """Returns the run of a ResNet on one and on eight devices."""
    with jax.default_prng_impl("rbg"):
        return {count: finish(train(RESNET, digits(), mesh=mesh_of(count))) for count in (1, 8)}


@pytest.mark.slow
def test_eight_devices_train_as_one(runs_of_resnet):
    (one,), first = runs_of_resnet[1]
    (eight,), second = runs_of_resnet[8]
    # Three steps of sums in another order, through six BatchNorms.
    np.testing.assert_allclose(measured(eight), measured(one), rtol=1e-4)
    for ours, theirs in zip(variables(second), variables(first), strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), ours, theirs)


@pytest.mark.parametrize("devices", [1, 8])
def test_evaluation_counts_all_that_is_held_out(runs_of_resnet, devices):
    (epoch,), state = runs_of_resnet[devices]
    dataset = digits()
    images, labels = arrays(dataset.held_out)
    images = (images - np.array(dataset.mean)) / np.array(dataset.std)
    logits = reference_models.resnet(images, *variables(state))
    assert epoch.held_out_metric == pytest.approx(np.mean(logits.argmax(axis=1) == labels), abs=1e-7)
    # Six float32 layers.
    assert epoch.held_out_nll == pytest.approx(nll(logits, labels).mean(), rel=1e-5)


def test_every_step_of_every_seed_augments_in_its_own_way(monkeypatch):
    keys = []
    monkeypatch.setattr(
        program, "augment", lambda kind, key, images: keys.append(jax.random.key_data(key)) or images
    )
    dataset = digits()
    made, state = program.start(SGD, dataset, mesh_of(1))
    batch = next(training_batches(dataset.train, 48, mesh_of(1), seed=0, start=0, stop=1))
    for seed, step in ((0, 0), (0, 1), (1, 0), (1, 0)):
        program.train_step(made, state, batch, program.arguments(SGD), seed, step)
    assert [len({tuple(map(int, key)) for key in some}) for some in (keys, keys[2:])] == [3, 1]


def test_a_run_can_be_watched(monkeypatch):
    monkeypatch.setattr(training, "SECONDS_BETWEEN_LOOKS", 0)
    looks = []
    epochs, _ = run_alone(SGD, digits(), watch=looks.append)
    assert [look[:2] for look in looks] == [(step, 6) for step in range(1, 7)]
    # At the end of an epoch it shows what the epoch yields, and the next begins anew.
    for last, epoch in ((looks[2], epochs[0]), (looks[5], epochs[1])):
        assert (last.nll, last.metric) == (epoch.train_nll, epoch.train_metric)
    # The first images of each epoch are those before one step, and before four.
    assert looks[0].nll > looks[3].nll


def test_a_watched_run_is_the_same(monkeypatch):
    alone, _ = run_alone(SGD, digits())
    monkeypatch.setattr(training, "SECONDS_BETWEEN_LOOKS", 0)
    watched, _ = run_alone(SGD, digits(), watch=lambda look: None)
    assert [measured(epoch) for epoch in watched] == [measured(epoch) for epoch in alone]


def test_a_second_passes_between_looks():
    looks = []
    epochs, _ = run_alone(dataclasses.replace(SGD, epochs=20), digits(), watch=looks.append)
    assert len(looks) <= sum(epoch.seconds for epoch in epochs)


def test_waiting_is_part_of_the_time():
    for epoch in run_alone(SGD, digits())[0]:
        assert 0 < epoch.waiting < epoch.seconds


def observe(monkeypatch):
    """Returns a list of what happens: "step", "read" of values by the host, and waiting for a step."""
    events = []

    class Loss:
        def __init__(self, array, step):
            self.array, self.step = array, step

        def block_until_ready(self):
            events.append(("wait", self.step))
            return self.array.block_until_ready()

    def compiled(program):
        step = original(program)

        def observed(*arguments):
            events.append("step")
            state, loss = step(*arguments)
            return state, Loss(loss, events.count("step"))

        return observed

    original, value = training.compiled_step, ArrayImpl._value

    def read(array):
        events.append("read")
        return value.fget(array)

    monkeypatch.setattr(training, "compiled_step", compiled)
    monkeypatch.setattr(ArrayImpl, "_value", property(read))
    return events


def test_steps_run_ahead_by_eight_and_none_is_read(monkeypatch):
    settings, dataset = dataclasses.replace(SGD, epochs=1), digits(960)
    run_alone(settings, dataset)  # compiles, for which JAX reads constants.
    events = observe(monkeypatch)
    run_alone(settings, dataset)
    first = events.index("step")
    last = len(events) - events[::-1].index("step")
    # Twenty steps, of which each waits for the one before the eight before it.
    expected = ["step"] * 8 + [event for step in range(12) for event in ("step", ("wait", step + 1))]
    assert events[first:last] == expected[:-1]
    # The means at the end of the epoch are read: this would have seen it.
    assert "read" in events[last:]


def refusal(dataset=None, devices=8, **changes):
    with pytest.raises(SettingsError) as error:
        check(dataclasses.replace(RESNET, **changes), dataset or digits(), mesh_of(devices))
    (line,) = str(error.value).splitlines()
    return line


def test_what_cannot_be_trained_is_refused_in_a_line():
    assert refusal(batch_size=50) == ("a batch of 50 cannot be divided over 8 devices: name a multiple of 8")
    assert refusal(batch_size=152) == "a batch of 152 is more than the 150 training images of digits"
    assert refusal(model="vgg11") == (
        "vgg11 needs images of 32 x 32 pixels or more; those of digits have 8 x 8"
    )
    assert refusal(Dataset(*digits()[:3], (40, 28, 1), *digits()[4:]), model="vgg11") == (
        "vgg11 needs images of 32 x 32 pixels or more; those of digits have 40 x 28"
    )


def test_a_warm_up_longer_than_the_run_is_refused():
    assert refusal(warmup_steps=10000) == (
        "a warm-up of 10000 steps leaves none of the 3 of the run: name fewer --warmup-steps or more --epochs"
    )
    assert "a warm-up of 3 steps leaves none" in refusal(warmup_steps=3)
    check(dataclasses.replace(RESNET, warmup_steps=2), digits(), mesh_of(8))
    check(dataclasses.replace(RESNET, warmup_steps=9, schedule="constant"), digits(), mesh_of(8))


def test_what_can_be_trained_is_not_refused():
    check(RESNET, digits(), mesh_of(8))
    check(dataclasses.replace(RESNET, batch_size=150), digits(), mesh_of(1))
    check(dataclasses.replace(RESNET, model="vgg11"), digits()._replace(shape=(32, 32, 3)), mesh_of(8))


def test_a_refusal_comes_before_training():
    with pytest.raises(SettingsError, match="cannot be divided"):
        next(train(dataclasses.replace(RESNET, batch_size=50), digits()))
