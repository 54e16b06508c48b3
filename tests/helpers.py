"""What several test modules need."""

import jax
import jax.numpy as jnp
import numpy as np
import optax


def enable_x64(new_val):
    """Enables or disables float64 within a block; JAX had it elsewhere before 0.8."""
    return (jax if hasattr(jax, "enable_x64") else jax.experimental).enable_x64(new_val)


def trajectory(optimizer, params, gradients, *, jit=True):
    """Returns the list of parameters after each step, given the gradient of each step."""

    def step(params, state, g):
        updates, state = optimizer.update(g, state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step) if jit else step
    state = optimizer.init(params)
    visited = []
    for g in gradients:
        params, state = step(params, state, g)
        visited.append(params)
    return visited


def random_problem(seed=0, steps=25, dtype=jnp.float32):
    """Returns params and gradients as trees of arrays, among the gradients an exact zero."""
    rng = np.random.default_rng(seed)

    def tree():
        scale = 10.0 ** rng.uniform(-4, 1, (3, 2))
        return {
            "w": jnp.asarray(rng.standard_normal((3, 2)) * scale, dtype),
            "b": jnp.asarray(rng.standard_normal(4), dtype),
        }

    params, gradients = tree(), [tree() for _ in range(steps)]
    gradients[0]["b"] = gradients[0]["b"].at[1].set(0)
    return params, gradients
