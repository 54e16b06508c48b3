"""Batches of a split, prefetched by threads: any step of any epoch is a function of the seed."""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import grain
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.data.registry import Split

# Each thread loads a whole batch, so more threads than batches ahead would idle.
AHEAD = grain.ReadOptions(num_threads=8, prefetch_buffer_size=8)
Arrays: TypeAlias = tuple[np.ndarray, ...]
# From the step: which examples, and the seed of what is random in loading them.
Plan: TypeAlias = Callable[[int], tuple[np.ndarray, tuple[int, ...] | None]]


class Batch(NamedTuple):
    """The examples of one step, split over the devices."""

    inputs: jax.Array  # images [n, height, width, channels] uint8, or tokens [n, length] int32.
    labels: jax.Array  # int32 [n], of text the next tokens [n, length].
    weights: jax.Array  # [n] float32: 1, or 0 for what only fills the last batch of an evaluation.


def training_batches(
    split: Split, batch_size: int, mesh: Mesh, *, seed: int, start: int, stop: int
) -> Iterator[Batch]:
    """Yields the batches of the steps from `start` to `stop`: whole ones, in a new order each epoch."""
    per_epoch = len(split) // batch_size

    def plan(step: int) -> tuple[np.ndarray, tuple[int, ...]]:
        epoch, index = divmod(step, per_epoch)
        order = _order(len(split), seed, epoch)
        return order[index * batch_size : (index + 1) * batch_size], (seed, epoch)

    return _batches(_Steps(split, plan, stop, batch_size, mesh), start)


def evaluation_batches(split: Split, batch_size: int, mesh: Mesh) -> Iterator[Batch]:
    """Yields all of the split once, in its order; the last batch is filled up."""

    def plan(step: int) -> tuple[np.ndarray, None]:
        return np.arange(step * batch_size, min((step + 1) * batch_size, len(split))), None

    return _batches(_Steps(split, plan, -(-len(split) // batch_size), batch_size, mesh), 0)


@functools.lru_cache(maxsize=2)  # of this epoch, and of the next one, which is prefetched.
def _order(examples: int, seed: int, epoch: int) -> np.ndarray:
    # Seeded by the epoch, so that any epoch can be run again without those before it.
    return np.random.default_rng((seed, epoch)).permutation(examples)


class _Steps:
    """The part of each batch that this process trains on, as a sequence: what Grain prefetches."""

    def __init__(self, split: Split, plan: Plan, steps: int, batch_size: int, mesh: Mesh) -> None:
        self.sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names[0]))  # type: ignore[no-untyped-call]
        self.batch_size = batch_size
        self.rows = _local_rows(self.sharding, batch_size)
        self._split, self._plan, self._steps = split, plan, steps

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> Arrays:
        chosen, seed = self._plan(step)
        weights = (self.rows < len(chosen)).astype(np.float32)
        chosen = np.resize(chosen, self.batch_size)[self.rows]
        return *self._split.load(chosen, seed), weights


def _local_rows(sharding: NamedSharding, batch_size: int) -> np.ndarray:
    """Returns which rows of a batch the devices of this process hold."""
    slices = sharding.addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[index] for index in slices if index]))


def _batches(steps: _Steps, start: int) -> Iterator[Batch]:
    def place(array: np.ndarray) -> jax.Array:
        shape = (steps.batch_size, *array.shape[1:])
        return jax.make_array_from_process_local_data(steps.sharding, array, shape)  # type: ignore[no-untyped-call]

    for arrays in grain.MapDataset.source(steps)[start:].to_iter_dataset(AHEAD):
        yield Batch(*map(place, arrays))
