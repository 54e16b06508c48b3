"""LPSGD's p for runs of many lengths in one compiled program."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import lpoptax

MANY = 2**20


def annealed_p(p_max: Any, p_final: Any, steps: Any) -> optax.Schedule:
    """Returns the cosine schedule of p, whose arguments may be traced. An infinite p stays as it is."""
    # The library's schedule must know its number of steps: this one has many, of which some are taken.
    schedule = lpoptax.cosine_p_schedule(jnp.asarray(p_max), MANY, p_final=jnp.asarray(p_final))

    def p(count: jax.Array) -> jax.Array:
        fraction = jnp.minimum(count / jnp.maximum(steps - 1, 1), 1)
        return jnp.where(jnp.isinf(p_max), p_max, schedule(fraction * (MANY - 1)))

    return p


def label(p_max: float, p_final: float) -> str:
    """Returns p, and where it goes."""
    start, end = ("∞" if np.isinf(p) else f"{p:g}" for p in (p_max, p_final))
    return start if start == end else f"{start} → {end}"
