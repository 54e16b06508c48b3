"""Which parameters are matrices to the optimizers of matrices."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

FIRST_AND_LAST = {"embedding", "stem", "head"}  # layers of the models here.


def all_matrices(params: Any) -> Any:
    """Returns how kernels and embeddings are matrices; that of a convolution has height x width x in rows."""

    def numbers(leaf: jax.Array) -> Any:
        if leaf.ndim < 2:
            return None
        return optax.contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)

    return jax.tree.map(numbers, params)


def hidden_matrices(params: Any) -> Any:
    """Returns the same, but of the hidden layers."""

    def hidden(path: Any, leaf: jax.Array) -> jax.Array:
        is_end = any(getattr(key, "key", None) in FIRST_AND_LAST for key in path)
        return jnp.zeros(()) if is_end else leaf

    return all_matrices(jax.tree_util.tree_map_with_path(hidden, params))


MATRICES = {"hidden": hidden_matrices, "all": all_matrices}
