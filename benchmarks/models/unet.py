"""A small U-Net that finds the noise in images: the network of diffusion models."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

SAME = ((1, 1), (1, 1))  # padding around a kernel of three by three pixels.
GROUPS = 4  # of each norm.
WAVES = 16  # in which the time is told.


class Block(nnx.Module):
    """Two convolutions with a shortcut around them, shifted by the time."""

    def __init__(self, channels: int, features: int, time: int, **options: Any) -> None:
        """Makes a block."""
        self.first = nnx.Conv(channels, features, (3, 3), padding=SAME, **options)
        self.second = nnx.Conv(features, features, (3, 3), padding=SAME, **options)
        self.norms = nnx.List([nnx.GroupNorm(features, GROUPS, **options) for _ in range(2)])
        self.shift = nnx.Linear(time, features, **options)
        self.shortcut = nnx.Linear(channels, features, **options)

    def __call__(self, x: jax.Array, time: jax.Array) -> jax.Array:
        """Maps [n, h, w, channels] to [n, h, w, features]."""
        y = nnx.silu(self.norms[0](self.first(x)) + self.shift(time)[:, None, None])
        return nnx.silu(self.norms[1](self.second(y))) + self.shortcut(x)


class UNet(nnx.Module):
    """Blocks at full and at half resolution, and one at full again, which sees the first once more."""

    def __init__(
        self, features: int, *, shape: Sequence[int], classes: int, dtype: Any, rngs: nnx.Rngs
    ) -> None:
        """Makes a network for images of this shape, whose sides are even."""
        del classes
        channels, time = shape[-1], 4 * features
        options: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.time = nnx.Linear(2 * WAVES, time, **options)
        self.stem = nnx.Conv(channels, features, (3, 3), padding=SAME, **options)
        self.down = Block(features, features, time, **options)
        self.middle = Block(features, 2 * features, time, **options)
        self.up = Block(3 * features, features, time, **options)
        self.head = nnx.Conv(features, channels, (3, 3), padding=SAME, **options)

    def __call__(self, x: jax.Array, time: jax.Array) -> jax.Array:
        """Maps noised images [n, h, w, channels] and times [n], from 0 to 1, to the noise in them."""
        of_time = nnx.silu(self.time(waves(time)))
        full = self.down(self.stem(x), of_time)
        half = self.middle(nnx.avg_pool(full, (2, 2), strides=(2, 2)), of_time)  # type: ignore[no-untyped-call]
        again = jnp.repeat(jnp.repeat(half, 2, axis=1), 2, axis=2)
        return self.head(self.up(jnp.concatenate([full, again], axis=-1), of_time))


def waves(time: jax.Array) -> jax.Array:
    """Returns sines and cosines [n, 2 * WAVES] of times, slow to fast."""
    angles = jnp.outer(time, 1000 ** jnp.linspace(0, 1, WAVES))
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
