"""Steps whose length does not depend on p: unit RMS, and the choice that the optimizers offer."""

import math
import operator
from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from lpoptax._hyperparameters import is_number
from lpoptax._power import scale_by_lp_power
from lpoptax._precision import cast_like, scalar, smallest_normal, widen
from lpoptax._steepest_descent import scale_by_lp_steepest_descent

Normalization: TypeAlias = Literal["rms", "rms_per_leaf", "dual_norm", "dual_norm_per_leaf"]


def normalize_by_update_rms(*, per_leaf: bool = False) -> optax.GradientTransformation:
    r"""Divides the updates by their root mean square.

    .. math::

        u = \frac{g}{\mathrm{rms}(g)}, \qquad
        \mathrm{rms}(g) = \Bigl(\frac1d \sum_{i=1}^{d} |g_i|^2\Bigr)^{1/2}

    over the d coordinates of the whole tree, or of each leaf; under :func:`optax.masked` or
    :func:`optax.partition` of those that they pass on. After it a learning rate is the
    root mean square of what is added to the parameters, whatever was before it. So put it after
    :func:`lpoptax.scale_by_lp_power`, whose length depends on p, and before a weight decay,
    which it must not scale.

    It differs from :func:`optax.normalize_by_update_norm` in that the mean takes the place of the
    sum, so that the step does not shrink as the number of coordinates grows; in that updates of
    any finite scale are normalized, in half precision too, and no eps bends small ones; and in
    that leaves keep their dtypes.

    The squares are summed in at least float32. Over sharded leaves the step communicates once, a
    scalar for each leaf. Where the sum of the squares leaves the range of floats, in float32 for a norm
    above 1e19 or a root mean square below 1e-14, they are summed once more, scaled; under
    :func:`jax.vmap` always. Zero updates stay zero. Where one coordinate is nan all become nan; an
    infinite one becomes nan, and the finite ones zero.

    Args:
        per_leaf: whether each leaf is divided by its own root mean square; default False, all
            by that of the whole tree.

    Returns:
        A :class:`optax.GradientTransformation`. Updates keep their shapes and dtypes, except that
        integers become floats.

    Raises:
        Nothing.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import lpoptax
        >>> import optax
        >>> def f(x): return jnp.sum(x ** 2)
        >>> for p in (2.0, 3.0, jnp.inf):
        ...     solver = optax.chain(
        ...         lpoptax.scale_by_lp_power(p), lpoptax.normalize_by_update_rms(), optax.scale(-0.1)
        ...     )
        ...     params = jnp.array([1.0, 2.0, 3.0])
        ...     updates, state = solver.update(jax.grad(f)(params), solver.init(params))
        ...     print([round(u, 3) for u in updates.tolist()], f"{f(params + updates):.2f}")
        [-0.046, -0.093, -0.139] 12.73
        [-0.071, -0.1, -0.122] 12.75
        [-0.1, -0.1, -0.1] 12.83

    References:
        Shazeer and Stern, `Adafactor: Adaptive Learning Rates with Sublinear Memory Cost
        <https://arxiv.org/abs/1804.04235>`_, 2018 (there a bound on the same quantity)
    """

    def update_fn(
        updates: optax.Updates, state: optax.EmptyState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.EmptyState]:
        del params
        return (jax.tree.map(_unit_rms, updates) if per_leaf else _unit_rms(updates)), state

    return optax.GradientTransformation(optax.init_empty_state, update_fn)


@jax.jit  # else the branch in it would be compiled at each call from Python.
def _unit_rms(updates: optax.Updates) -> optax.Updates:
    leaves, structure = jax.tree.flatten(updates)
    size = sum(jnp.size(leaf) for leaf in leaves)
    if size == 0:
        return updates
    scale, total = _sum_of_squares(leaves, size)
    # Zero updates are multiplied with 1, in derivatives too.
    factor = 1 / jnp.sqrt(jnp.where(total == 0, 1, total / float(size)))
    # One after the other: the product of scale and factor may leave the range of floats.
    scaled = (_times(leaf, scale) for leaf in leaves)
    normalized = [cast_like(g * scalar(factor, g), leaf) for g, leaf in zip(scaled, leaves, strict=True)]
    return jax.tree.unflatten(structure, normalized)


def _sum_of_squares(leaves: list[ArrayLike], size: int) -> tuple[jax.Array, jax.Array]:
    """Returns a scale, which is 1 if it can be, and the sum of |scale * g|^2 over all coordinates."""

    def total(scale: jax.Array) -> jax.Array:
        return jnp.stack([jnp.sum(jnp.abs(_times(leaf, scale)) ** 2) for leaf in leaves]).sum()

    common = widen(*(jnp.zeros((), jnp.asarray(leaf).dtype) for leaf in leaves))[0]
    one = scalar(1, common)
    plain = total(one)
    # A power of 2 that takes the square of the smallest normal number far from where it is lost,
    # and its inverse that of the largest.
    up = 2.0 ** round(-0.75 * math.log2(smallest_normal(one)))
    is_small = plain < size / up
    is_fine = ~is_small & (plain < jnp.inf)
    scale = jnp.where(is_fine, one, jnp.where(is_small, one * up, one / up))
    # A branch, and no selection: on many devices the second sum is a second round of communication.
    return scale, jax.lax.cond(is_fine, lambda: plain, lambda: total(scale))


def _times(leaf: ArrayLike, scale: jax.Array) -> jax.Array:
    return operator.mul(*widen(leaf, scale))


def lp_direction(
    p: optax.ScalarOrSchedule, eps: ArrayLike, normalization: Normalization | None
) -> optax.GradientTransformation:
    """Returns what turns a gradient or a momentum into a step."""
    if not isinstance(normalization, str | None) or normalization not in (None, *get_args(Normalization)):
        allowed = ", ".join(map(repr, (None, *get_args(Normalization))))
        raise ValueError(f"normalization must be one of {allowed}, got normalization={normalization!r}.")
    per_leaf = normalization is not None and normalization.endswith("_per_leaf")
    if normalization is None:
        return scale_by_lp_power(p, eps)
    if normalization.startswith("dual_norm"):
        return scale_by_lp_steepest_descent(p, eps, per_leaf=per_leaf)
    # The powers that p < 2 takes may leave the range of floats, which steepest descent, of the same
    # direction, does not.
    below_2 = is_number(p) and p < 2
    direction = (
        scale_by_lp_steepest_descent(p, eps, per_leaf=per_leaf) if below_2 else scale_by_lp_power(p, eps)
    )
    return _in_wide_precision(optax.chain(direction, normalize_by_update_rms(per_leaf=per_leaf)))


def _in_wide_precision(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns the transformation with half precision at its two ends only."""

    def update_fn(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        wide, state = inner.update(jax.tree.map(lambda g: widen(g)[0], updates), state, params)
        return jax.tree.map(cast_like, wide, updates), state

    return optax.GradientTransformation(inner.init, update_fn)
