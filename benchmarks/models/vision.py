"""Convolutional networks, in Flax NNX.

Shapes and parameter counts are PyTorch's: padding is symmetric, shortcuts that change shape are
1 x 1 convolutions with BatchNorm, convolutions before a BatchNorm have no bias. Three choices
are ours, as the papers tell none: VGG-11 has BatchNorm and, on small images, a single linear
layer as its head; initial values are Flax's defaults; batch statistics are those of the whole
batch, over all devices.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

LARGE = 64  # pixels; from here on images are those of ImageNet, below those of CIFAR.
VGG11 = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool")


class Convolution(NamedTuple):
    """A convolution of a block."""

    features: int
    size: int
    stride: int = 1


Block = Callable[[int, int], Sequence[Convolution]]  # from the width of a stage and the first stride.


def basic(width: int, stride: int) -> Sequence[Convolution]:
    """Returns the two convolutions of a block of a small ResNet."""
    return Convolution(width, 3, stride), Convolution(width, 3)


def bottleneck(width: int, stride: int) -> Sequence[Convolution]:
    """Returns the three convolutions of a block of a deep ResNet."""
    return Convolution(width, 1), Convolution(width, 3, stride), Convolution(4 * width, 1)


class Layers(NamedTuple):
    """Makes layers that compute in one dtype; all parameters and statistics are float32."""

    dtype: Any
    rngs: nnx.Rngs

    def conv(self, in_features: int, convolution: Convolution) -> nnx.Conv:
        """Returns a convolution without bias that divides height and width by its stride."""
        features, size, stride = convolution
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

    def __init__(self, layers: Layers, in_features: int, convolutions: Sequence[Convolution]) -> None:
        """Makes a block of convolutions, in order."""
        widths = [in_features, *(convolution.features for convolution in convolutions)]
        self.convolutions = nnx.List(map(layers.conv, widths, convolutions))
        self.norms = nnx.List(map(layers.norm, widths[1:]))
        stride = max(convolution.stride for convolution in convolutions)
        shortcut: list[nnx.Module] = []
        if stride != 1 or in_features != widths[-1]:
            projection = Convolution(widths[-1], 1, stride)
            shortcut = [layers.conv(in_features, projection), layers.norm(widths[-1])]
        self.shortcut = nnx.Sequential(*shortcut)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [n, h, w, in_features] to [n, h / stride, w / stride, features]."""
        y = x
        for index, (conv, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            y = norm(conv(y if index == 0 else nnx.relu(y)))
        return nnx.relu(y + self.shortcut(x))


class ResNet(nnx.Module):
    """A residual network; its stem is a convolution, followed by pooling if told so."""

    def __init__(
        self,
        block: Block,
        stages: Sequence[tuple[int, int]],
        stem: Convolution,
        *,
        pool: bool,
        shape: Sequence[int],
        classes: int,
        dtype: Any,
        rngs: nnx.Rngs,
    ) -> None:
        """Makes a network of stages (width, blocks), of which all but the first halve the resolution."""
        layers = Layers(dtype, rngs)
        self.stem = layers.conv(shape[-1], stem)
        self.norm = layers.norm(stem.features)
        self.pool = pool
        blocks, features = [], stem.features
        for stage, (width, count) in enumerate(stages):
            for index in range(count):
                convolutions = block(width, 2 if stage > 0 and index == 0 else 1)
                blocks.append(Residual(layers, features, convolutions))
                features = convolutions[-1].features
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


def resnet(block: Block, counts: Sequence[int], *, shape: Sequence[int], **options: Any) -> ResNet:
    """Returns a network with the stem that images of this shape need."""
    large = min(shape[:2]) >= LARGE
    stem = Convolution(64, 7, 2) if large else Convolution(64, 3)
    stages = list(zip((64, 128, 256, 512), counts, strict=True))
    return ResNet(block, stages, stem, pool=large, shape=shape, **options)


def small_resnet(blocks: int, *, stride: int = 1, stages: int = 3, **options: Any) -> ResNet:
    """Returns a network for small images, with so many blocks in each stage."""
    counts = [(16, blocks), (32, blocks), (64, blocks)][:stages]
    return ResNet(basic, counts, Convolution(16, 3, stride), pool=False, **options)


class VGG(nnx.Module):
    """VGG-11 with BatchNorm; on large images with its two hidden layers, on small ones without."""

    def __init__(self, *, shape: Sequence[int], classes: int, dtype: Any, rngs: nnx.Rngs) -> None:
        """Makes a network for images of this shape."""
        layers = Layers(dtype, rngs)
        convolutions, norms, features = [], [], shape[-1]
        for width in VGG11:
            if isinstance(width, int):
                convolutions.append(layers.conv(features, Convolution(width, 3)))
                norms.append(layers.norm(width))
                features = width
        self.convolutions, self.norms = nnx.List(convolutions), nnx.List(norms)
        widths = [49 * features, 4096, 4096] if min(shape[:2]) >= LARGE else [features]
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


def _max_pool(x: jax.Array, size: int, padding: Any) -> jax.Array:
    """Halves height and width."""
    return nnx.max_pool(x, (size, size), strides=(2, 2), padding=padding)  # type: ignore[no-untyped-call]
