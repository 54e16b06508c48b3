"""Leaves as stacks of matrices: which leaves are matrices, how they are stacked, and on which devices."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from lpoptax._precision import widen


@dataclasses.dataclass(frozen=True)
class Axes:
    """The order of a leaf's axes: the batch's, then those of a matrix's rows and columns, the fewer first."""

    order: tuple[int, ...]
    batch: int  # how many axes each of the three has
    rows: int

    def to_stack(self, leaf: ArrayLike) -> jax.Array:
        """Returns a leaf as a stack of matrices [batch, rows, columns]."""
        (wide,) = widen(leaf)
        transposed = _without_merged_shards(jnp.transpose(wide, self.order), self)
        return jnp.reshape(transposed, self.sizes(transposed.shape))

    def from_stack(self, stack: jax.Array, like: ArrayLike) -> jax.Array:
        """Returns the leaf that the stack was."""
        shape = jnp.shape(like)
        unmerged = jnp.reshape(_without_merged_shards(stack, self), [shape[axis] for axis in self.order])
        inverse = sorted(range(len(shape)), key=lambda axis: self.order[axis])
        return jnp.transpose(unmerged, inverse)

    def sizes(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Returns the sizes of a stack of matrices, given that of the axes in order."""
        ends = self.batch, self.batch + self.rows
        return math.prod(shape[: ends[0]]), math.prod(shape[ends[0] : ends[1]]), math.prod(shape[ends[1] :])

    @property
    def merges(self) -> bool:
        return (self.batch, self.rows, len(self.order)) not in ((0, 1, 2), (1, 1, 3))


def axes_of_matrices(updates: optax.Updates, numbers: Any) -> Any:
    """Returns a tree like `updates` of the Axes of leaves that are matrices, and False for the others."""
    numbers = numbers(updates) if callable(numbers) else numbers
    if numbers is None:
        both = (0,), (1,)
        return jax.tree.map(lambda leaf: jnp.ndim(leaf) == 2 and _axes(leaf, *both), updates)
    # What inject_hyperparams makes of a function that it calls as a schedule.
    if isinstance(numbers, jax.Array):
        raise ValueError(
            "weight_dimension_numbers must be a function or a tree of MuonDimensionNumbers and None, "
            f"got weight_dimension_numbers={numbers} (under inject_hyperparams, name it in static_args)."
        )
    return jax.tree.map(
        lambda one, leaves: jax.tree.map(lambda leaf: _checked_axes(leaf, one), leaves),
        numbers,
        updates,
        is_leaf=lambda one: one is None or isinstance(one, optax.MaskedNode) or _is_numbers(one),
    )


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
    is_fine = reduction and output and all(-ndim <= axis < ndim for axis in named)
    if not is_fine or len({axis % ndim for axis in named}) < len(named):
        raise ValueError(
            "weight_dimension_numbers must name different axes of a leaf for its reduction and its output, "
            f"got {numbers} for a leaf of shape {jnp.shape(leaf)}."
        )
    return _axes(leaf, tuple(axis % ndim for axis in reduction), tuple(axis % ndim for axis in output))


def _axes(leaf: ArrayLike, reduction: tuple[int, ...], output: tuple[int, ...]) -> Axes | bool:
    dtype = jnp.result_type(leaf)  # abstract leaves have one, too.
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise ValueError(f"updates must be floats where they are matrices, got a matrix of {dtype}.")
    shape = jnp.shape(leaf)
    if 0 in shape:
        return False
    rows, columns = sorted((reduction, output), key=lambda axes: math.prod(shape[axis] for axis in axes))
    batch = tuple(axis for axis in range(len(shape)) if axis not in (*rows, *columns))
    return Axes((*batch, *rows, *columns), len(batch), len(rows))


def map_stacks(
    function: Callable[[jax.Array], jax.Array],
    leaves: Sequence[ArrayLike],
    axes: Sequence[Axes],
    sharding: NamedSharding | None,
) -> list[jax.Array]:
    """Maps a function of stacks of matrices over leaves; those of one shape go through it together."""
    stacks = [one.to_stack(leaf) for one, leaf in zip(axes, leaves, strict=True)]
    groups: dict[Any, list[int]] = {}
    for index, stack in enumerate(stacks):
        groups.setdefault((stack.shape[1:], stack.dtype, _explicit(stack)), []).append(index)
    mapped: list[Any] = [None] * len(stacks)
    for members in groups.values():
        parts = _on_whole_matrices(function, [stacks[index] for index in members], sharding)
        for index, part in zip(members, parts, strict=True):
            mapped[index] = _placed(axes[index].from_stack(part, leaves[index]), _explicit(leaves[index]))
    return mapped


def _on_whole_matrices(
    function: Callable[[jax.Array], jax.Array], stacks: list[jax.Array], sharding: NamedSharding | None
) -> list[jax.Array]:
    sizes = [len(stack) for stack in stacks]
    if len(stacks) > 1:  # An axis that is sharded cannot be concatenated.
        stacks = [_placed(stack, _replicated(stack, axes=1)) for stack in stacks]
    together = jnp.concatenate(stacks)
    # Zero matrices, so that all devices have equally many.
    missing = 0 if sharding is None else -len(together) % _devices(sharding)
    padded = jnp.pad(together, [(0, missing), (0, 0), (0, 0)]) if missing else together
    placed = _placed(padded, _replicated(padded, axes=3) if sharding is None else sharding)
    result = _placed(function(placed), _explicit(padded))
    return jnp.split(result, list(itertools.accumulate(sizes)))[:-1]


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


def _replicated(x: jax.Array, axes: int) -> NamedSharding | None:
    """Returns the explicit sharding of an array, less that of its first axes."""
    sharding = _explicit(x)
    if sharding is None:
        return None
    spec = PartitionSpec(*[None] * axes, *sharding.spec[axes:])  # type: ignore[no-untyped-call]
    return NamedSharding(sharding.mesh, spec)


def _without_merged_shards(x: jax.Array, axes: Axes) -> jax.Array:
    return _placed(x, _replicated(x, axes=x.ndim)) if axes.merges else x


def _placed(x: jax.Array, sharding: NamedSharding | None) -> jax.Array:
    if sharding is None:
        return x
    if _is_explicit(sharding):
        return jax.sharding.reshard(x, sharding)  # type: ignore[no-untyped-call]
    return jax.lax.with_sharding_constraint(x, sharding)  # type: ignore[no-untyped-call]
