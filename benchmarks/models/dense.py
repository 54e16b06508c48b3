"""Networks of dense layers: one for the rows of a table, and a deep autoencoder."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx


class Perceptron(nnx.Module):
    """Hidden layers of ReLUs, and a linear one."""

    def __init__(
        self, hidden: Sequence[int], *, shape: Sequence[int], classes: int, dtype: Any, rngs: nnx.Rngs
    ) -> None:
        """Makes a network for rows of this shape."""
        widths = [*shape, *hidden, classes]
        stem, *others, head = (
            nnx.Linear(*pair, dtype=dtype, rngs=rngs) for pair in itertools.pairwise(widths)
        )
        self.stem, self.hidden, self.head = stem, nnx.List(others), head

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps rows [n, columns] to logits [n, classes]."""
        x = nnx.relu(self.stem(x))
        for layer in self.hidden:
            x = nnx.relu(layer(x))
        return self.head(x)


class Autoencoder(nnx.Module):
    """A deep autoencoder as Hinton and Salakhutdinov's, by which second-order methods were judged.

    It narrows to a linear code and widens again. Units are tanh and initial values Glorot's: without
    these the logistic units of the original need to be trained layer by layer.
    """

    def __init__(
        self, hidden: Sequence[int], *, shape: Sequence[int], classes: int, dtype: Any, rngs: nnx.Rngs
    ) -> None:
        """Makes a network for images of this shape; the last hidden layer is the code."""
        del classes
        pixels = shape[0] * shape[1] * shape[2]
        widths = [pixels, *hidden, *reversed(hidden[:-1]), pixels]
        initial = nnx.initializers.glorot_uniform()
        stem, *others, head = (
            nnx.Linear(*pair, kernel_init=initial, dtype=dtype, rngs=rngs)
            for pair in itertools.pairwise(widths)
        )
        self.stem, self.hidden, self.head = stem, nnx.List(others), head
        self.code = len(hidden) - 2  # of the layers between the first and the last.

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps pixels [n, pixels] to logits of the same shape."""
        x = nnx.tanh(self.stem(x))
        for index, layer in enumerate(self.hidden):
            x = layer(x) if index == self.code else nnx.tanh(layer(x))
        return self.head(x)
