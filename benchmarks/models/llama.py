"""Decoder-only language models as Llama's (Touvron et al. 2023), in Flax NNX.

RMSNorm before each part, rotary positions (RoPE), SwiGLU, causal attention, no biases, and a
head of its own, which is not tied to the embedding. The paper of STACEY tells no shape of its
"LLaMA 100M". Ours is the usual one of that size in studies of optimizers (ReLoRA, GaLore):
twelve layers, width 640, ten heads, 1,708 hidden units and, on `c4`, 32,000 tokens. Initial
values are normal with a standard deviation of 0.02.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

EPSILON = 1e-6  # of RMSNorm.
BASE = 10_000.0  # of the wavelengths of the rotary positions.
INITIAL = nnx.initializers.normal(0.02)


class Size(NamedTuple):
    """The size of a model, but for its vocabulary."""

    layers: int
    width: int
    heads: int
    hidden: int  # units of each SwiGLU.


class Layers(NamedTuple):
    """Makes layers that compute in one dtype; all parameters are float32."""

    dtype: Any
    rngs: nnx.Rngs

    def linear(self, in_features: int, features: int) -> nnx.Linear:
        """Returns a linear map."""
        return nnx.Linear(
            in_features, features, use_bias=False, kernel_init=INITIAL, dtype=self.dtype, rngs=self.rngs
        )

    def norm(self, features: int) -> nnx.RMSNorm:
        """Returns an RMSNorm, whose mean square is computed in float32."""
        return nnx.RMSNorm(features, epsilon=EPSILON, dtype=self.dtype, rngs=self.rngs)

    def embed(self, vocabulary: int, features: int) -> nnx.Embed:
        """Returns a vector for each token."""
        return nnx.Embed(vocabulary, features, embedding_init=INITIAL, dtype=self.dtype, rngs=self.rngs)


def rotate(x: jax.Array) -> jax.Array:
    """Returns [n, tokens, heads, features] with each pair of features turned by an angle.

    The pairs are a feature of the first half and one of the second. The angle is the token's
    position times a frequency, which falls from 1 to almost 1/10,000 over the pairs.
    """
    half = x.shape[-1] // 2
    frequencies = BASE ** (-jnp.arange(half) / half)
    angles = jnp.outer(jnp.arange(x.shape[1]), frequencies)[None, :, None, :]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    # In float32: bfloat16 cannot tell positions beyond 256 apart.
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)


class Attention(nnx.Module):
    """Causal attention with several heads."""

    def __init__(self, layers: Layers, width: int, heads: int) -> None:
        """Makes the four maps."""
        self.query, self.key, self.value, self.out = (layers.linear(width, width) for _ in range(4))
        self.heads = heads

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [n, tokens, width] to the same shape; no token sees a later one."""

        def by_head(y: jax.Array) -> jax.Array:
            return y.reshape(*y.shape[:2], self.heads, -1)

        query, key = (rotate(by_head(project(x))) for project in (self.query, self.key))
        mixed = jax.nn.dot_product_attention(query, key, by_head(self.value(x)), is_causal=True)
        return self.out(mixed.reshape(x.shape))


class SwiGLU(nnx.Module):
    """A gated layer of hidden units."""

    def __init__(self, layers: Layers, width: int, hidden: int) -> None:
        """Makes the three maps."""
        self.gate, self.up = layers.linear(width, hidden), layers.linear(width, hidden)
        self.down = layers.linear(hidden, width)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [n, tokens, width] to the same shape, each token by itself."""
        return self.down(nnx.silu(self.gate(x)) * self.up(x))


class Block(nnx.Module):
    """Attention and SwiGLU, each with a norm before it and a shortcut around both."""

    def __init__(self, layers: Layers, size: Size) -> None:
        """Makes one layer of the decoder."""
        self.attention_norm, self.mlp_norm = layers.norm(size.width), layers.norm(size.width)
        self.attention = Attention(layers, size.width, size.heads)
        self.mlp = SwiGLU(layers, size.width, size.hidden)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [n, tokens, width] to the same shape."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class Llama(nnx.Module):
    """A decoder that predicts the next token at every place."""

    def __init__(self, size: Size, *, shape: Sequence[int], classes: int, dtype: Any, rngs: nnx.Rngs) -> None:
        """Makes a model with as many tokens as there are classes; it takes any length."""
        del shape
        layers = Layers(dtype, rngs)
        self.embedding = layers.embed(classes, size.width)
        self.blocks = nnx.List([Block(layers, size) for _ in range(size.layers)])
        self.norm = layers.norm(size.width)
        self.head = layers.linear(size.width, classes)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps tokens [n, length] to logits [n, length, vocabulary]."""
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))
