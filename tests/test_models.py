"""The models against PyTorch's: their sizes, their shapes, and one of them in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks.models.registry import build_model
from tests import reference_models

NAMES = ["resnet8", "resnet8_stride2", "resnet20", "resnet18", "resnet50", "vgg11"]
IMAGENET, CIFAR, DIGITS = (224, 224, 3), (32, 32, 3), (8, 8, 1)
# torchvision's counts; kuangliu's and Idelbayev's for CIFAR. VGG's convolutions have biases there,
# 2,752 in all, which the BatchNorm after them makes idle.
IDLE = 64 + 128 + 2 * 256 + 4 * 512
COUNTS = [
    ("resnet50", IMAGENET, 1000, 25_557_032),
    ("resnet18", IMAGENET, 1000, 11_689_512),
    ("vgg11", IMAGENET, 1000, 132_868_840 - IDLE),
    ("resnet18", CIFAR, 10, 11_173_962),
    ("resnet50", CIFAR, 10, 23_520_842),
    ("vgg11", CIFAR, 10, 9_231_114 - IDLE),
    ("resnet20", CIFAR, 10, 272_474),
    ("resnet8", DIGITS, 10, 77_754),
]


def abstract(name, shape, classes, **options):
    return nnx.eval_shape(lambda: build_model(name, shape, classes, **options))


def of_type(model, kind):
    return nnx.to_pure_dict(nnx.state(model, kind))


def concrete(name, shape, classes, **options):
    """Returns a model with random parameters and statistics, none of which is 0 or 1, and these."""
    rng = np.random.default_rng(0)
    graphdef, params, statistics, rest = nnx.split(
        abstract(name, shape, classes, **options), nnx.Param, nnx.BatchStat, ...
    )
    assert not jax.tree.leaves(rest)
    # Fans of about a hundred, and variances that are positive.
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0.05, 0.1, leaf.shape), jnp.float32), params)
    statistics = jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), jnp.float32), statistics
    )
    return nnx.merge(graphdef, params, statistics)


def in_float64(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


@pytest.mark.parametrize(("name", "shape", "classes", "count"), COUNTS)
def test_parameter_counts_are_the_published_ones(name, shape, classes, count):
    params = jax.tree.leaves(nnx.state(abstract(name, shape, classes), nnx.Param))
    assert sum(leaf.size for leaf in params) == count


@pytest.mark.parametrize(("name", "stride"), [("resnet8", 1), ("resnet8_stride2", 2)])
def test_a_resnet_8_computes_what_its_definition_says(name, stride):
    model = concrete(name, (9, 10, 2), 3)
    images = np.random.default_rng(1).normal(0, 1, (4, 9, 10, 2))
    expected = reference_models.resnet(
        images, in_float64(of_type(model, nnx.Param)), in_float64(of_type(model, nnx.BatchStat)), stride
    )
    model.eval()
    # Sums of a few hundred float32 products, in nine layers one after the other.
    np.testing.assert_allclose(
        nnx.jit(model)(jnp.asarray(images, jnp.float32)), expected, rtol=1e-4, atol=1e-4
    )


def convolutions(name, shape, **options):
    """Returns the outputs of a model's convolutions, in evaluation, without computing them."""
    graphdef, state = nnx.split(abstract(name, shape, 10, **options))

    def run(state, images):
        model = nnx.merge(graphdef, state)
        model.eval()
        return model(images)

    jaxpr = jax.make_jaxpr(run)(state, jax.ShapeDtypeStruct((2, *shape), jnp.float32))
    return [eqn.outvars[0].aval for eqn in jaxpr.eqns if eqn.primitive.name == "conv_general_dilated"]


@pytest.mark.parametrize(
    ("name", "size", "heights"),
    [
        ("resnet18", 224, [112, 56, 28, 14, 7]),
        ("resnet18", 64, [32, 16, 8, 4, 2]),
        ("resnet18", 63, [63, 32, 16, 8]),
        ("resnet50", 224, [112, 56, 28, 14, 7]),
        ("resnet50", 32, [32, 16, 8, 4]),
        ("vgg11", 224, [224, 112, 56, 28, 14]),
        ("vgg11", 32, [32, 16, 8, 4, 2]),
        ("resnet20", 32, [32, 16, 8]),
        ("resnet8_stride2", 28, [14, 7, 4]),
    ],
)
def test_the_stem_suits_the_size_of_the_images(name, size, heights):
    shapes = [output.shape[1:3] for output in convolutions(name, (size, size, 3))]
    assert list(dict.fromkeys(shapes)) == [(height, height) for height in heights]


@pytest.mark.parametrize("name", NAMES)
def test_models_take_any_channels_and_classes(name):
    channels, classes = 5, 7
    model = abstract(name, (32, 48, channels), classes)
    model.eval()
    images = jax.ShapeDtypeStruct((2, 32, 48, channels), jnp.float32)
    assert nnx.eval_shape(lambda model, x: model(x), model, images).shape == (2, classes)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_for_computing_only(name):
    outputs = convolutions(name, CIFAR, dtype="bfloat16")
    assert {output.dtype for output in outputs} == {jnp.dtype(jnp.bfloat16)}
    state = nnx.state(abstract(name, CIFAR, 10, dtype="bfloat16"), nnx.Any(nnx.Param, nnx.BatchStat))
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype(jnp.float32)}


def test_a_bfloat16_model_gathers_float32_statistics():
    norm = concrete("resnet8", DIGITS, 10, dtype="bfloat16").norm
    old = in_float64(of_type(norm, nnx.BatchStat))
    norm.train()
    x = jnp.asarray(np.random.default_rng(1).normal(8, 1, (64, 8, 8, 16)), jnp.bfloat16)
    assert nnx.jit(lambda norm, x: norm(x))(norm, x).dtype == jnp.bfloat16
    rows = np.asarray(x, np.float64).reshape(-1, 16)
    expected = {"mean": 0.9 * old["mean"] + 0.1 * rows.mean(0), "var": 0.9 * old["var"] + 0.1 * rows.var(0)}
    new = of_type(norm, nnx.BatchStat)
    for name in ("mean", "var"):
        assert new[name].dtype == jnp.float32
        # The variance is the difference of 65 and 64, each a float32 sum: 65 times its rounding error.
        # In bfloat16 either is off by 1e-2.
        np.testing.assert_allclose(new[name], expected[name], rtol=1e-5)


def test_the_seed_decides_the_parameters():
    # Threefry, the default, takes five times as long to compile.
    with jax.default_prng_impl("rbg"):
        models = [build_model("resnet8", DIGITS, 10, seed=seed) for seed in (0, 0, 1)]
    kernels = [
        [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)) if leaf.ndim > 1]
        for model in models
    ]
    for one, same, other in zip(*kernels, strict=True):
        np.testing.assert_array_equal(one, same)
        assert np.all(one != other)
