"""The dtypes that updates are computed in, and the maps over their leaves."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def widen(*arrays: ArrayLike) -> list[jax.Array]:
    """Returns the arrays in their common dtype, but at least in float32.

    Half precision is where an optimizer loses small steps (an eps of 1e-8 is 0 in
    float16), and the conversion costs nothing where a step is bound by memory.
    """
    dtypes = [_wide(jnp.asarray(x).dtype) for x in arrays]
    # The promotion is meant, so it happens where the user allows no implicit one, too.
    with jax.numpy_dtype_promotion("standard"):
        common = functools.reduce(jnp.promote_types, dtypes, jnp.dtype(jnp.float32))
    return [jnp.asarray(x).astype(common) for x in arrays]


def _wide(dtype: Any) -> Any:
    # JAX promotes a float8 with no other type.
    is_small = jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4
    return jnp.dtype(jnp.float32) if is_small else dtype


def scalar(value: ArrayLike, like: jax.Array) -> jax.Array:
    """Returns the hyperparameter `value` in the real dtype of `like`."""
    return jnp.asarray(value).astype(_limits(like).dtype)


def factor(value: ArrayLike, like: jax.Array) -> jax.Array:
    """Returns `value` in the dtype of `like`, to be multiplied with it."""
    return jnp.asarray(value).astype(like.dtype)


def cast_like(x: jax.Array, like: ArrayLike) -> jax.Array:
    """Returns `x` in the dtype of `like`, an array or a number, unless that is of integers."""
    dtype = jnp.asarray(like).dtype
    return x.astype(dtype) if jnp.issubdtype(dtype, jnp.inexact) else x


def smallest_normal(x: jax.Array) -> float:
    """Returns the smallest normal number in the real dtype of `x`."""
    return float(_limits(x).tiny)


def largest_finite(x: jax.Array) -> float:
    """Returns the largest finite number in the real dtype of `x`."""
    return float(_limits(x).max)


def _limits(x: jax.Array) -> Any:
    return jnp.finfo(x.dtype)  # type: ignore[no-untyped-call]


def map_leaves(function: Callable[..., Any], updates: Any, *others: Any) -> Any:
    """Maps over the leaves of `updates` and what belongs to them; a missing leaf, None, stays None."""
    return jax.tree.map(
        lambda u, *rest: None if u is None else function(u, *rest),
        updates,
        *others,
        is_leaf=lambda leaf: leaf is None,
    )
