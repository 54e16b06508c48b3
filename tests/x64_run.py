"""Runs a row of each kind in every dtype, in a process whose settings are those of the environment.

`tests/test_modes.py` starts it with float64 enabled, strict promotion of dtypes and none of ranks.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests.helpers import random_problem
from tests.optimizers import KINDS, ROWS

DTYPES = ["float16", "bfloat16", "float32", "float64", "complex64", "float8_e4m3fn"]
# Rounding of a few operations; float16 overflows and vanishes early, and float8 has 3 bits.
TOLERANCE = {"float16": 4e-3, "bfloat16": 3e-2, "float32": 2e-5, "float64": 1e-12, "complex64": 2e-5}


def fault(name, dtype):
    """Returns what is wrong with a row in a dtype, or None."""
    row = ROWS[name]
    if dtype == "complex64" and {"accumulator_dtype", "mu_dtype", "z_dtype"} & row.settings.keys():
        return None  # complex numbers have no momentum of a real dtype
    params, gradients = random_problem(steps=3, dtype=jnp.float64)
    params, *gradients = (jax.tree.map(lambda x: x.astype(dtype), tree) for tree in (params, *gradients))
    optimizer = row.build()
    states = [optimizer.init(params)] * 2
    for g in gradients:
        updates = []
        for index, update in enumerate((optimizer.update, jax.jit(optimizer.update))):
            u, state = update(g, states[index], params)
            if not same_types(u, params) or not same_types(state, states[index]):
                return "a shape or a dtype changes"
            updates.append(u)
            states[index] = state
        counters = [leaf.dtype for leaf in jax.tree.leaves(states) if jnp.issubdtype(leaf.dtype, jnp.integer)]
        if set(counters) - {jnp.dtype(jnp.int32)}:
            return f"a counter is {counters}"
        if dtype in TOLERANCE and not close(*updates, TOLERANCE[dtype]):
            return "eager and compiled updates differ"
    if dtype in ("bfloat16", "float32"):  # the range of float64's gradients is theirs, too.
        wide, wide_state = jax.tree.map(lambda x: x.astype(jnp.float64), (params, optimizer.init(params)))
        for g in gradients:
            expected, wide_state = optimizer.update(
                jax.tree.map(lambda x: x.astype(jnp.float64), g), as_state(optimizer, wide, wide_state), wide
            )
        # The momentum, too, is rounded in each step.
        if not close(updates[1], expected, 4 * TOLERANCE[dtype]):
            return "differs from float64"
    return None


def as_state(optimizer, params, state):
    """Returns the state with the dtypes that it has for float64."""
    return jax.tree.map(lambda x, like: x.astype(like.dtype), state, optimizer.init(params))


def same_types(tree, other):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree) == jax.tree.map(
        lambda x: (x.shape, x.dtype), other
    )


def close(tree, other, tolerance):
    pairs = zip(*map(jax.tree.leaves, (tree, other)), strict=True)
    return all(
        np.allclose(np.asarray(x, complex), np.asarray(y, complex), rtol=tolerance, atol=tolerance * 1e-3)
        for x, y in pairs
    )


def main():
    assert jax.config.jax_enable_x64
    assert jax.config.jax_numpy_dtype_promotion == "strict"
    assert jax.config.jax_numpy_rank_promotion == "raise"
    for name, dtype in itertools.product(KINDS, DTYPES):
        if (found := fault(name, dtype)) is not None:
            print(f"{name} in {dtype}: {found}")
    print(f"{len(KINDS) * len(DTYPES)} cases with Optax {optax.__version__}")


if __name__ == "__main__":
    main()
