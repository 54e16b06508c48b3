"""The models, by name, in Flax NNX: those for images here, those for text in `language_models.py`.

The shapes and parameter counts of those for images are PyTorch's: padding is symmetric, shortcuts
that change shape are 1 x 1 convolutions with BatchNorm, convolutions before a BatchNorm
have no bias. Three choices are ours, as the papers tell none: VGG-11 has BatchNorm and, on
small images, a single linear layer as its head; initial values are Flax's defaults; batch
statistics are those of the whole batch, over all devices.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.models.llama import LANGUAGE_MODELS, Llama

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
SMALLEST = {"vgg11": 32}  # pixels; its five poolings leave one.
LARGE = 64  # pixels; from here on images are those of ImageNet, below those of CIFAR.
VGG11 = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool")


class Layers(NamedTuple):
    """Makes layers that compute in one dtype; all parameters and statistics are float32."""

    dtype: Any
    rngs: nnx.Rngs

    def conv(self, in_features: int, features: int, size: int, stride: int = 1) -> nnx.Conv:
        """Returns a convolution without bias that divides height and width by `stride`."""
        padding = (size - 1) // 2
        return nnx.Conv(
            in_features,
            features,
            (size, size),
            strides=stride,
            padding=((padding, padding), (padding, padding)),
            use_bias=False,
            dtype=self.dtype,
            rngs=self.rngs,
        )

    def norm(self, features: int) -> nnx.BatchNorm:
        """Returns a BatchNorm, whose statistics are computed in float32."""
        return nnx.BatchNorm(features, momentum=0.9, dtype=self.dtype, rngs=self.rngs)

    def linear(self, in_features: int, features: int) -> nnx.Linear:
        """Returns a linear layer."""
        return nnx.Linear(in_features, features, dtype=self.dtype, rngs=self.rngs)


class Residual(nnx.Module):
    """Convolutions with a shortcut around them."""

    def __init__(self, layers: Layers, shape: Sequence[tuple[int, int, int]], in_features: int) -> None:
        """Makes a block of convolutions with the given (features, size, stride), in order."""
        convolutions, features, total_stride = [], in_features, 1
        for out_features, size, stride in shape:
            convolutions.append(layers.conv(features, out_features, size, stride))
            features, total_stride = out_features, total_stride * stride
        self.convolutions = nnx.List(convolutions)
        self.norms = nnx.List([layers.norm(out_features) for out_features, _, _ in shape])
        shortcut: list[nnx.Module] = []
        if total_stride != 1 or in_features != features:
            shortcut = [layers.conv(in_features, features, 1, total_stride), layers.norm(features)]
        self.shortcut = nnx.Sequential(*shortcut)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [n, h, w, in_features] to [n, h / stride, w / stride, features]."""
        y = x
        for index, (conv, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            y = norm(conv(y if index == 0 else nnx.relu(y)))
        return nnx.relu(y + self.shortcut(x))


def _basic(features: int, stride: int) -> list[tuple[int, int, int]]:
    return [(features, 3, stride), (features, 3, 1)]


def _bottleneck(features: int, stride: int) -> list[tuple[int, int, int]]:
    return [(features, 1, 1), (features, 3, stride), (4 * features, 1, 1)]


def _max_pool(x: jax.Array, size: int, padding: Any) -> jax.Array:
    """Halves height and width."""
    return nnx.max_pool(x, (size, size), strides=(2, 2), padding=padding)  # type: ignore[no-untyped-call]


class ResNet(nnx.Module):
    """A residual network; `stem` is a convolution's (size, stride), followed by pooling if `pool`."""

    def __init__(
        self,
        block: Callable[[int, int], list[tuple[int, int, int]]],
        stages: Sequence[tuple[int, int]],
        stem: tuple[int, int],
        *,
        pool: bool,
        channels: int,
        classes: int,
        dtype: Any,
        rngs: nnx.Rngs,
    ) -> None:
        """Makes a network of stages (features, blocks), of which all but the first halve the resolution."""
        layers = Layers(dtype, rngs)
        features = stages[0][0]
        self.stem = layers.conv(channels, features, *stem)
        self.norm = layers.norm(features)
        self.pool = pool
        blocks = []
        for stage, (width, count) in enumerate(stages):
            for index in range(count):
                shape = block(width, 2 if stage > 0 and index == 0 else 1)
                blocks.append(Residual(layers, shape, features))
                features = shape[-1][0]
        self.blocks = nnx.List(blocks)
        self.head = layers.linear(features, classes)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images [n, height, width, channels] to logits [n, classes]."""
        x = nnx.relu(self.norm(self.stem(x)))
        if self.pool:
            x = _max_pool(x, 3, ((1, 1), (1, 1)))
        for block in self.blocks:
            x = block(x)
        return self.head(jnp.mean(x, axis=(1, 2)))


class VGG(nnx.Module):
    """VGG with BatchNorm; on large images with its two hidden layers, on small ones without."""

    def __init__(self, *, large: bool, channels: int, classes: int, dtype: Any, rngs: nnx.Rngs) -> None:
        """Makes a VGG-11."""
        layers = Layers(dtype, rngs)
        convolutions, norms, features = [], [], channels
        for width in VGG11:
            if width != "pool":
                convolutions.append(layers.conv(features, int(width), 3))
                norms.append(layers.norm(int(width)))
                features = int(width)
        self.convolutions, self.norms = nnx.List(convolutions), nnx.List(norms)
        widths = [49 * features, 4096, 4096] if large else [features]
        self.hidden = nnx.List([layers.linear(*pair) for pair in itertools.pairwise(widths)])
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = layers.linear(widths[-1], classes)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images [n, height, width, channels] to logits [n, classes]."""
        layers = iter(zip(self.convolutions, self.norms, strict=True))
        for width in VGG11:
            if width == "pool":
                x = _max_pool(x, 2, "VALID")
            else:
                conv, norm = next(layers)
                x = nnx.relu(norm(conv(x)))
        if not self.hidden:
            return self.head(jnp.mean(x, axis=(1, 2)))
        x = x.reshape(len(x), -1)
        for hidden in self.hidden:
            x = self.dropout(nnx.relu(hidden(x)))
        return self.head(x)


Build = Callable[..., nnx.Module]


def _small(blocks: int, stride: int = 1, stages: int = 3) -> Build:
    def build(*, large: bool, **options: Any) -> nnx.Module:
        del large
        shape = [(16, blocks), (32, blocks), (64, blocks)][:stages]
        return ResNet(_basic, shape, (3, stride), pool=False, **options)

    return build


def _resnet(block: Callable[[int, int], list[tuple[int, int, int]]], *counts: int) -> Build:
    def build(*, large: bool, **options: Any) -> nnx.Module:
        stages = list(zip((64, 128, 256, 512), counts, strict=True))
        return ResNet(block, stages, (7, 2) if large else (3, 1), pool=large, **options)

    return build


def _llama(name: str) -> Build:
    def build(*, classes: int, **options: Any) -> nnx.Module:
        return Llama(LANGUAGE_MODELS[name], vocabulary=classes, **options)

    return build


MODELS: dict[str, Build] = {
    "resnet4": _small(1, stages=1),  # the smallest: for checks that must be quick.
    "resnet8": _small(1),
    "resnet8_stride2": _small(1, stride=2),  # a quarter of the work: for full-size studies on a CPU.
    "resnet20": _small(3),
    "resnet18": _resnet(_basic, 2, 2, 2, 2),
    "resnet50": _resnet(_bottleneck, 3, 4, 6, 3),
    "vgg11": VGG,
    **{name: _llama(name) for name in LANGUAGE_MODELS},
}


def build_model(
    name: str, shape: Sequence[int], classes: int, *, dtype: str = "float32", seed: int = 0
) -> nnx.Module:
    """Returns the model for images of shape (height, width, channels), or text of shape (length,).

    Models for images have the stem that they need, those for text take any length.
    """
    sizes: dict[str, Any] = {}
    if name not in LANGUAGE_MODELS:
        height, width, channels = shape
        sizes = {"large": min(height, width) >= LARGE, "channels": channels}
    return MODELS[name](**sizes, classes=classes, dtype=DTYPES[dtype], rngs=nnx.Rngs(seed))
