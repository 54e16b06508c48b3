"""Products with a Hessian, and what is estimated from them: all that needs matfree."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lpoptax._precision import widen

try:
    from matfree import decomp, stochtrace
except ModuleNotFoundError as error:
    raise ImportError(
        "lpoptax.curvature needs matfree, which comes with the extra lpoptax[curvature]."
    ) from error

Loss = Callable[[Any], jax.Array]
Product = Callable[[Any], Any]


def floating(tree: Any) -> Any:
    """Returns the tree in one real dtype, at least float32; refuses any other kind."""
    leaves, structure = jax.tree.flatten(tree)
    dtypes = [jnp.result_type(leaf) for leaf in leaves]
    if not all(jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes) or not sum(map(jnp.size, leaves)):
        found = ", ".join(sorted({dtype.name for dtype in dtypes})) or "nothing"
        raise ValueError(f"the tree must hold real floating-point numbers, got {found}.")
    return jax.tree.unflatten(structure, widen(*leaves))


def hessian_product(loss: Loss, params: Any) -> Product:
    """Returns the function that multiplies a tree like `params` with the Hessian there."""
    # The forward pass is done once, not with each product.
    _, product = jax.linearize(jax.grad(loss), params)
    return product


def lanczos_quadrature(
    product: Product, like: Any, key: jax.Array, num_steps: int, num_samples: int
) -> tuple[jax.Array, jax.Array]:
    """Returns Ritz values and weights, [num_samples, num_steps], of random directions."""
    tridiagonalise = decomp.tridiag_sym(num_steps, materialize=False, custom_vjp=False)

    def quadrature(start: Any) -> tuple[jax.Array, jax.Array]:
        _, (diagonal, off_diagonal), *_ = tridiagonalise(product, start)
        values, vectors = jnp.linalg.eigh(_until_breakdown(diagonal, off_diagonal))
        return values, vectors[0] ** 2

    directions = stochtrace.sampler_normal(like, num=num_samples)(key)
    # One after the other: together they would take n times the memory.
    return jax.lax.map(quadrature, directions)


def row_norms(product: Product, like: Any, key: jax.Array, num_samples: int) -> Any:
    """Returns the Euclidean norm of each row, in the shape of `like`."""
    squares = stochtrace.monte_carlo_rownorms_squared()
    directions = stochtrace.sampler_signs(like, num=num_samples)(key)
    samples = jax.lax.map(lambda direction: squares(product, direction), directions)
    return jax.tree.map(lambda leaf: jnp.sqrt(jnp.mean(leaf, axis=0)), samples)


def _until_breakdown(diagonal: jax.Array, off_diagonal: jax.Array) -> jax.Array:
    """Returns the tridiagonal matrix, with neutral entries from where the directions are exhausted."""
    # A vector of no more length than rounding gives it is noise, or nan, and so is what follows.
    # A Rayleigh quotient in its place, uncoupled, has weight 0 and lies within the spectrum.
    scale = jnp.nanmax(jnp.abs(jnp.concatenate([diagonal, off_diagonal])))
    rounding = 100 * jnp.finfo(diagonal.dtype).eps * scale  # type: ignore[no-untyped-call]
    valid = jnp.cumprod(off_diagonal > rounding).astype(bool)
    kept = jnp.concatenate([jnp.ones(1, bool), valid])
    diagonal = jnp.where(kept, diagonal, diagonal[0])
    off_diagonal = jnp.where(valid, off_diagonal, 0)
    return jnp.diag(diagonal) + jnp.diag(off_diagonal, 1) + jnp.diag(off_diagonal, -1)
