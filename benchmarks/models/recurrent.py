"""A recurrent language model."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


class LSTM(nnx.Module):
    """Long short-term memory between an embedding and a linear layer; gates that forget begin open."""

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        shape: Sequence[int],
        classes: int,
        dtype: Any,
        rngs: nnx.Rngs,
    ) -> None:
        """Makes a model with as many tokens as there are classes; it takes any length."""
        del shape
        options: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.embedding = nnx.Embed(classes, width, **options)
        self.input = nnx.Linear(width, 4 * hidden, **options)
        initial = nnx.initializers.orthogonal()
        self.recurrent = nnx.Linear(hidden, 4 * hidden, use_bias=False, kernel_init=initial, **options)
        self.head = nnx.Linear(hidden, classes, **options)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps tokens [n, length] to logits [n, length, vocabulary]."""
        gates = self.input(self.embedding(tokens)).transpose(1, 0, 2)
        zeros = jnp.zeros((len(tokens), gates.shape[-1] // 4), gates.dtype)

        def step(carry: tuple[jax.Array, jax.Array], of_input: jax.Array) -> Any:
            hidden, cell = carry
            enter, forget, leave, new = jnp.split(of_input + self.recurrent(hidden), 4, axis=-1)
            cell = nnx.sigmoid(forget + 1) * cell + nnx.sigmoid(enter) * jnp.tanh(new)
            hidden = nnx.sigmoid(leave) * jnp.tanh(cell)
            return (hidden, cell), hidden

        _, hidden = jax.lax.scan(step, (zeros, zeros), gates, unroll=4)
        return self.head(hidden.transpose(1, 0, 2))
