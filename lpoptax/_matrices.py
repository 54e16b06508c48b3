"""Leaves as stacks of matrices: which leaves are matrices, how they are stacked, and on which devices."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from lpoptax._precision import cast_like, widen


@dataclasses.dataclass(frozen=True)
class Axes:
    """Which axes of a stack of equal leaves are the batch, which the rows and columns, the fewer first."""

    batch: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    def to_matrices(self, stack: jax.Array) -> jax.Array:
        """Returns a stack of leaves as one of matrices [batch, rows, columns], in the dtype to compute in."""
        (wide,) = widen(stack)
        merged = [axis for side in self._sides if _merges(side, stack) for axis in side]
        ordered = jnp.transpose(_placed(wide, _less(wide, merged)), self._order)
        return jnp.reshape(ordered, [math.prod(stack.shape[axis] for axis in side) for side in self._sides])

    def from_matrices(self, matrices: jax.Array, like: jax.Array) -> jax.Array:
        """Returns the matrices as the stack of leaves that they were, placed like it."""
        merged = [index for index, side in enumerate(self._sides) if _merges(side, like)]
        placed = _placed(matrices, _less(matrices, merged))
        ordered = jnp.reshape(placed, [like.shape[axis] for axis in self._order])
        stack = jnp.transpose(ordered, [self._order.index(axis) for axis in range(like.ndim)])
        return _placed(stack, _explicit(like))

    @property
    def _sides(self) -> tuple[tuple[int, ...], ...]:
        return self.batch, self.rows, self.columns

    @property
    def _order(self) -> tuple[int, ...]:
        return self.batch + self.rows + self.columns


def _merges(side: tuple[int, ...], stack: jax.Array) -> bool:
    return sum(stack.shape[axis] > 1 for axis in side) > 1


def axes_of_matrices(updates: optax.Updates, numbers: Any) -> Any:
    """Returns a tree like `updates` of the Axes of leaves that are matrices, and False for the others."""
    if numbers is None:
        both = (0,), (1,)
        return jax.tree.map(lambda leaf: jnp.ndim(leaf) == 2 and _axes(leaf, *both), updates)
    # None from a function is a tree, too: for updates of one leaf, or as a prefix, no matrix.
    numbers = numbers(updates) if callable(numbers) else numbers
    # What inject_hyperparams makes of a function that it calls as a schedule.
    if isinstance(numbers, jax.Array):
        raise ValueError(
            "weight_dimension_numbers must be a function or a tree of MuonDimensionNumbers and None, "
            f"got weight_dimension_numbers={numbers} (under inject_hyperparams, name it in static_args)."
        )
    try:
        jax.tree.map(lambda *_: None, numbers, updates, is_leaf=_is_for_a_leaf)
    except ValueError as error:
        raise ValueError(
            "weight_dimension_numbers must be a tree like the updates, or a prefix of one, of "
            f"MuonDimensionNumbers and None, got weight_dimension_numbers={numbers!r}."
        ) from error
    return jax.tree.map(
        lambda one, leaves: jax.tree.map(lambda leaf: _checked_axes(leaf, one), leaves),
        numbers,
        updates,
        is_leaf=_is_for_a_leaf,
    )


def _is_for_a_leaf(one: Any) -> bool:
    return one is None or isinstance(one, optax.MaskedNode) or _is_numbers(one)


def _is_numbers(one: Any) -> bool:
    return hasattr(one, "reduction_axis") and hasattr(one, "output_axis")


def _checked_axes(leaf: ArrayLike, numbers: Any) -> Axes | bool:
    if numbers is None or isinstance(numbers, optax.MaskedNode):
        return False
    if not _is_numbers(numbers):
        raise ValueError(
            "weight_dimension_numbers must be a tree of MuonDimensionNumbers and None, "
            f"got {numbers!r} in weight_dimension_numbers."
        )
    ndim = jnp.ndim(leaf)
    reduction, output = (
        tuple(axes) if isinstance(axes, Sequence) else (axes,)
        for axes in (numbers.reduction_axis, numbers.output_axis)
    )
    named = (*reduction, *output)
    is_fine = reduction and output and all(_is_axis(axis, ndim) for axis in named)
    if not is_fine or len({axis % ndim for axis in named}) < len(named):
        raise ValueError(
            "weight_dimension_numbers must name different axes of a leaf for its reduction and its output, "
            f"got {numbers} for a leaf of shape {jnp.shape(leaf)}."
        )
    return _axes(leaf, tuple(axis % ndim for axis in reduction), tuple(axis % ndim for axis in output))


def _is_axis(axis: Any, ndim: int) -> bool:
    return isinstance(axis, int | np.integer) and bool(-ndim <= axis < ndim)


def _axes(leaf: ArrayLike, reduction: tuple[int, ...], output: tuple[int, ...]) -> Axes | bool:
    if not jnp.issubdtype(_dtype(leaf), jnp.inexact):
        raise ValueError(f"updates must be floats where they are matrices, got a matrix of {_dtype(leaf)}.")
    shape = jnp.shape(leaf)
    if 0 in shape:
        return False
    rows, columns = sorted((reduction, output), key=lambda axes: math.prod(shape[axis] for axis in axes))
    batch = [axis for axis in range(len(shape)) if axis not in (*rows, *columns)]
    # The first axis of a stack counts the leaves.
    return Axes((0, *_next(batch)), _next(rows), _next(columns))


def _next(axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(axis + 1 for axis in axes)


def map_matrices(
    function: Callable[[jax.Array], jax.Array],
    leaves: Sequence[ArrayLike],
    axes: Sequence[Axes],
    sharding: NamedSharding | None,
    *,
    unless: jax.Array,
) -> list[jax.Array]:
    """Maps a function of stacks of matrices over leaves, which stay what they are where `unless` is true.

    Equal leaves are stacked before anything else, so that a program hardly grows with their number, and
    matrices of one shape go through the function together.
    """
    alike = _grouped(
        [(jnp.shape(x), _dtype(x), one, _explicit(x)) for x, one in zip(leaves, axes, strict=True)]
    )
    stacks = [jnp.stack([leaves[index] for index in group]) for group in alike]
    axes = [axes[group[0]] for group in alike]
    matrices = [one.to_matrices(stack) for one, stack in zip(axes, stacks, strict=True)]
    mapped: dict[int, jax.Array] = {}
    for together in _grouped([(x.shape[1:], x.dtype, _less(x, [0])) for x in matrices]):
        results = _on_whole_matrices(function, [matrices[index] for index in together], sharding)
        for index, result in zip(together, results, strict=True):
            back = cast_like(axes[index].from_matrices(result, stacks[index]), stacks[index])
            for leaf, one in zip(alike[index], jnp.unstack(back), strict=True):
                # A selection also tells the compiler to shard the result like the leaf.
                mapped[leaf] = jnp.where(unless, leaves[leaf], one)
    return [mapped[index] for index in range(len(leaves))]


def _dtype(leaf: ArrayLike) -> Any:
    return jnp.result_type(leaf)  # abstract leaves have one, too.


def _grouped(keys: Sequence[Any]) -> list[list[int]]:
    """Returns the indices of equal keys, in a list for each."""
    groups: dict[Any, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    return list(groups.values())


def _on_whole_matrices(
    function: Callable[[jax.Array], jax.Array], stacks: list[jax.Array], sharding: NamedSharding | None
) -> list[jax.Array]:
    if len(stacks) > 1:  # An axis that is sharded cannot be concatenated.
        stacks = [_placed(stack, _less(stack, [0])) for stack in stacks]
    together = jnp.concatenate(stacks)
    # Zero matrices, so that all devices have equally many.
    missing = 0 if sharding is None else -len(together) % _devices(sharding)
    padded = jnp.pad(together, [(0, missing), (0, 0), (0, 0)]) if missing else together
    placed = _placed(padded, _less(padded, range(3)) if sharding is None else sharding)
    result = _placed(function(placed), _explicit(padded))
    return jnp.split(result, list(itertools.accumulate(map(len, stacks))))[:-1]


def check_batch_sharding(sharding: Any) -> None:
    if sharding is None:
        return
    if not isinstance(sharding, NamedSharding) or any(axis is not None for axis in sharding.spec[1:]):
        raise ValueError(
            "batch_sharding must be a NamedSharding of the first axis alone, "
            f"got batch_sharding={sharding!r}."
        )


def _devices(sharding: NamedSharding) -> int:
    first = sharding.spec[0] if sharding.spec else None
    names = first if isinstance(first, tuple) else (first,)
    return math.prod(sharding.mesh.shape[name] for name in names if name is not None)


# Shardings that are part of an array's type. Without them all of these do nothing: the compiler shards.


def _explicit(x: ArrayLike) -> NamedSharding | None:
    """Returns the sharding of an array on a mesh with explicit axes."""
    sharding = jax.typeof(x).sharding
    return sharding if _is_explicit(sharding) else None


def _is_explicit(sharding: NamedSharding) -> bool:
    return any(kind == jax.sharding.AxisType.Explicit for kind in sharding.mesh.axis_types or ())


def _less(x: jax.Array, axes: Sequence[int]) -> NamedSharding | None:
    """Returns the explicit sharding of an array, less that of some axes."""
    sharding = _explicit(x)
    if sharding is None:
        return None
    spec = [None if axis in axes else names for axis, names in enumerate(sharding.spec)]
    return NamedSharding(sharding.mesh, PartitionSpec(*spec))  # type: ignore[no-untyped-call]


def _placed(x: jax.Array, sharding: NamedSharding | None) -> jax.Array:
    if sharding is None:
        return x
    if _is_explicit(sharding):
        return jax.sharding.reshard(x, sharding)  # type: ignore[no-untyped-call]
    return jax.lax.with_sharding_constraint(x, sharding)  # type: ignore[no-untyped-call]
