"""The models, by name, in Flax NNX."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx


class Block(nnx.Module):
    """Two 3 x 3 convolutions and a shortcut, as in ResNet-18."""

    def __init__(self, in_features: int, features: int, stride: int, *, rngs: nnx.Rngs) -> None:
        """Makes a block that divides height and width by `stride`."""
        conv = partial(nnx.Conv, use_bias=False, rngs=rngs)
        self.conv1 = conv(in_features, features, (3, 3), strides=stride)
        self.norm1 = nnx.BatchNorm(features, momentum=0.9, rngs=rngs)
        self.conv2 = conv(features, features, (3, 3))
        self.norm2 = nnx.BatchNorm(features, momentum=0.9, rngs=rngs)
        shortcut: list[nnx.Module] = []
        if stride != 1 or in_features != features:
            shortcut.append(conv(in_features, features, (1, 1), strides=stride))
            shortcut.append(nnx.BatchNorm(features, momentum=0.9, rngs=rngs))
        self.shortcut = nnx.Sequential(*shortcut)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [n, h, w, in_features] to [n, h / stride, w / stride, features]."""
        residual = self.norm2(self.conv2(nnx.relu(self.norm1(self.conv1(x)))))
        return nnx.relu(residual + self.shortcut(x))


class ResNet(nnx.Module):
    """A residual network for small images: a 3 x 3 stem without pooling."""

    def __init__(
        self,
        stage_features: Sequence[int],
        blocks_per_stage: int,
        *,
        channels: int,
        classes: int,
        rngs: nnx.Rngs,
    ) -> None:
        """Makes a network in which every stage but the first halves the resolution."""
        features = stage_features[0]
        self.stem = nnx.Conv(channels, features, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(features, momentum=0.9, rngs=rngs)
        blocks = []
        for stage, stage_width in enumerate(stage_features):
            for block in range(blocks_per_stage):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(Block(features, stage_width, stride, rngs=rngs))
                features = stage_width
        self.blocks = nnx.List(blocks)
        self.head = nnx.Linear(features, classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images [n, height, width, channels] to logits [n, classes]."""
        x = nnx.relu(self.norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.head(jnp.mean(x, axis=(1, 2)))


MODELS: dict[str, Callable[..., nnx.Module]] = {
    "resnet8": partial(ResNet, (16, 32, 64), 1),
}
