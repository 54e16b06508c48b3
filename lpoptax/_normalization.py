"""Steps whose length does not depend on p: unit RMS, and the choice that the optimizers offer."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from lpoptax._hyperparameters import check_non_negative, check_p, evaluate
from lpoptax._power import ScaleByLpPowerState, init_count, lp_power
from lpoptax._precision import cast_like, factor, smallest_normal, widen
from lpoptax._scaling import exponent_of, largest, relative_eps, scaled_power, sum_of_squares, times
from lpoptax._steepest_descent import steepest_descent

Normalization: TypeAlias = Literal["rms", "dual_norm"]


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
    :func:`jax.vmap` always. Inside :func:`jax.shard_map` an update sees the shards of one device, so
    that their root mean square is what it finds: call it outside, under :func:`jax.jit`. Zero updates
    stay zero. Where one coordinate is nan all become nan; an
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
        return (jax.tree.map(_unit_rms_tree, updates) if per_leaf else _unit_rms_tree(updates)), state

    return optax.GradientTransformation(optax.init_empty_state, update_fn)


@jax.jit  # else the branch in it would be compiled at each call from Python.
def _unit_rms_tree(updates: optax.Updates) -> optax.Updates:
    leaves, structure = jax.tree.flatten(updates)
    normalized = [cast_like(u, leaf) for u, leaf in zip(_unit_rms(leaves), leaves, strict=True)]
    return jax.tree.unflatten(structure, normalized)


def _unit_rms(leaves: Sequence[ArrayLike]) -> list[jax.Array]:
    """Returns the leaves divided by their common root mean square, in at least float32."""
    size = _size(leaves)
    if size == 0:
        return [jnp.asarray(leaf) for leaf in leaves]
    scale, total = sum_of_squares(leaves, size)
    inverse = _inverse_rms(total, size)
    # One after the other: the product of scale and inverse may leave the range of floats.
    scaled = (times(leaf, scale) for leaf in leaves)
    return [g * factor(inverse, g) for g in scaled]


def lp_direction(
    p: optax.ScalarOrSchedule,
    eps: ArrayLike,
    normalization: Normalization | None,
    per_leaf: bool,
) -> optax.GradientTransformation:
    """Returns what turns a gradient or a momentum into a step; its state is the same for all lengths."""
    check_p("p", p)
    check_non_negative("eps", eps)
    if not isinstance(normalization, str | None) or normalization not in (None, *get_args(Normalization)):
        allowed = ", ".join(map(repr, (None, *get_args(Normalization))))
        raise ValueError(f"normalization must be one of {allowed}, got normalization={normalization!r}.")
    if per_leaf and normalization is None:
        raise ValueError(f"per_leaf must be False without a normalization, got per_leaf={per_leaf!r}.")

    def update_fn(
        updates: optax.Updates, state: ScaleByLpPowerState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, ScaleByLpPowerState]:
        del params
        step = functools.partial(_STEPS[normalization], p=evaluate(p, state.count), eps=eps)
        by_leaf = per_leaf or normalization is None
        updates = jax.tree.map(step, updates) if by_leaf else step(updates)
        return updates, ScaleByLpPowerState(count=optax.safe_increment(state.count))

    return optax.GradientTransformation(init_count, update_fn)


def _unit_rms_power(updates: optax.Updates, p: ArrayLike, eps: ArrayLike) -> optax.Updates:
    leaves, structure = jax.tree.flatten(updates)
    if _size(leaves) == 0:
        return updates
    return jax.tree.unflatten(structure, _unit_rms_of_power(leaves, exponent_of(p, leaves)[0], eps))


@jax.jit  # else a branch in it would be compiled at each call from Python.
def _unit_rms_of_power(leaves: list[ArrayLike], exponent: jax.Array, eps: ArrayLike) -> list[jax.Array]:
    size, one = _size(leaves), jnp.ones_like(exponent)

    def powers(of: Sequence[ArrayLike], rho: jax.Array, scale: jax.Array, most: jax.Array) -> list[jax.Array]:
        # A quotient: XLA on CPU stores none that is used twice, and computes a product twice.
        return [u / factor(most, u) for u in scaled_power(of, rho, eps, scale)[1]]

    def total(*of: Any) -> jax.Array:
        return jnp.stack(widen(*(jnp.sum(jnp.abs(u) ** 2) for u in powers(leaves, *of)))).sum()

    def with_scale() -> tuple[jax.Array, jax.Array, jax.Array]:
        # The result does not depend on the scale, nor do derivatives. With the largest magnitude for it
        # powers and sums of squares stay in the range of floats, whatever p is.
        scale = jax.lax.stop_gradient(largest(leaves))
        # That of the largest coordinate: near 0 where eps is larger than all.
        most = jnp.exp((jnp.minimum(exponent, 1) - 1) * jnp.log1p(relative_eps(eps, scale)))
        return scale, most, total(exponent, scale, most)

    def in_one_pass() -> tuple[jax.Array, jax.Array, jax.Array]:
        plain = total(jnp.minimum(exponent, 1), one, one)
        is_fine = (exponent <= 1) & (plain < jnp.inf)
        is_fine &= plain > factor(size, plain) * (2**60 * smallest_normal(plain))  # Else squares are lost.
        # In shard_map it is of this device, as the scale in the other branch is.
        here = jnp.where(is_fine, one, one)
        return jax.lax.cond(is_fine, lambda: (here, here, plain), with_scale)

    # On CPU looking for the largest first is cheaper than a branch. Accelerators would read all once more.
    scale, most, squares = jax.lax.platform_dependent(cpu=with_scale, default=in_one_pass)
    inverse = _inverse_rms(squares, size)
    # Computed twice, but on CPU, where arithmetic costs more than memory: so accelerators store no power.
    leaves_again = jax.lax.platform_dependent(leaves, cpu=lambda of: of, default=jax.lax.optimization_barrier)
    again = powers(leaves_again, exponent, scale, most)
    return [cast_like(u * factor(inverse, u), leaf) for u, leaf in zip(again, leaves, strict=True)]


def _size(leaves: Sequence[ArrayLike]) -> Any:
    size: Any = sum(jnp.size(leaf) for leaf in leaves)
    # Beyond 2^31, too; but a symbolic shape, as jax.export has, is no number.
    return float(size) if isinstance(size, int) else size


def _inverse_rms(total: jax.Array, size: Any) -> jax.Array:
    # Zero updates are multiplied with 1, in derivatives too.
    return 1 / jnp.sqrt(jnp.where(total == 0, 1, total / factor(size, total)))


_STEPS: dict[Normalization | None, Callable[..., Any]] = {
    None: lp_power,
    "rms": _unit_rms_power,
    "dual_norm": steepest_descent,
}
