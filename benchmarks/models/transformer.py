"""A small vision transformer: patches of two by two pixels, and the mean over their outputs."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

PATCH = 2  # pixels on each side.


class Block(nnx.Module):
    """Attention and two layers of hidden units, each with a norm before it and a shortcut around both."""

    def __init__(self, width: int, heads: int, **options: Any) -> None:
        """Makes one layer."""
        self.attention_norm, self.mlp_norm = (nnx.LayerNorm(width, **options) for _ in range(2))
        self.query, self.key, self.value, self.out = (nnx.Linear(width, width, **options) for _ in range(4))
        self.heads = heads
        self.up, self.down = nnx.Linear(width, 4 * width, **options), nnx.Linear(4 * width, width, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [n, patches, width] to the same shape."""
        y = self.attention_norm(x)
        by_head = (
            project(y).reshape(*y.shape[:2], self.heads, -1) for project in (self.query, self.key, self.value)
        )
        x = x + self.out(jax.nn.dot_product_attention(*by_head).reshape(x.shape))
        return x + self.down(nnx.gelu(self.up(self.mlp_norm(x))))


class VisionTransformer(nnx.Module):
    """A network of such layers, with a learned vector for each place."""

    def __init__(
        self,
        layers: int,
        width: int,
        heads: int,
        *,
        shape: Sequence[int],
        classes: int,
        dtype: Any,
        rngs: nnx.Rngs,
    ) -> None:
        """Makes a network for images of this shape, whose sides are even."""
        height, breadth, channels = shape
        options: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.stem = nnx.Linear(PATCH * PATCH * channels, width, **options)
        self.places = height // PATCH, breadth // PATCH
        initial = nnx.initializers.normal(0.02)
        self.embedding = nnx.Embed(self.places[0] * self.places[1], width, embedding_init=initial, **options)
        self.blocks = nnx.List([Block(width, heads, **options) for _ in range(layers)])
        self.norm = nnx.LayerNorm(width, **options)
        self.head = nnx.Linear(width, classes, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images [n, height, width, channels] to logits [n, classes]."""
        rows, columns = self.places
        patches = x.reshape(len(x), rows, PATCH, columns, PATCH, -1).transpose(0, 1, 3, 2, 4, 5)
        places = jnp.arange(rows * columns)[None]
        x = self.stem(patches.reshape(len(x), rows * columns, -1)) + self.embedding(places)
        for block in self.blocks:
            x = block(x)
        return self.head(jnp.mean(self.norm(x), axis=1))
