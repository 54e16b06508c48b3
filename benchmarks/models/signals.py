"""A convolutional network for signals: the one of the paper on MNIST-1D."""

from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx

SIZES = (5, 3, 3)  # of the kernels; each convolution halves the length.


class SignalNetwork(nnx.Module):
    """Three convolutions of ReLUs, and a linear layer of all that they give."""

    def __init__(
        self, features: int, *, shape: Sequence[int], classes: int, dtype: Any, rngs: nnx.Rngs
    ) -> None:
        """Makes a network for signals of this shape."""
        length, channels = shape
        convolutions = []
        for size in SIZES:
            # Of images that are one pixel wide.
            convolution = nnx.Conv(
                channels,
                features,
                (size, 1),
                strides=(2, 1),
                padding=((1, 1), (0, 0)),
                dtype=dtype,
                rngs=rngs,
            )
            convolutions.append(convolution)
            length, channels = (length + 2 - size) // 2 + 1, features
        stem, *others = convolutions
        self.stem, self.hidden = stem, nnx.List(others)
        self.head = nnx.Linear(length * features, classes, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps signals [n, length, channels] to logits [n, classes]."""
        x = nnx.relu(self.stem(x[:, :, None]))
        for convolution in self.hidden:
            x = nnx.relu(convolution(x))
        return self.head(x.reshape(len(x), -1))
