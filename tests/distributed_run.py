"""One process of several that train a model together: ADDRESS COUNT RANK MODEL OPTIMIZER FILE.

Each has two devices and loads its part of every batch. Writes its copy of the trained
parameters to FILE.
"""

import sys

import jax
import numpy as np
from jax.sharding import AxisType

from benchmarks.datasets import DATASETS
from benchmarks.optimizers import OPTIMIZERS, build
from benchmarks.training import train
from tests.checkpointed_run import finish


def trained_params(model, optimizer, mesh=None):
    """Returns the leaves of the parameters after one epoch of batches of 60."""
    dataset = DATASETS["digits"]()
    built = build(OPTIMIZERS[optimizer], 15)
    run = train(model, dataset, dataset.validation, built, epochs=1, batch_size=60, seed=0, mesh=mesh)
    _, state = finish(run)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state.params)]


if __name__ == "__main__":
    address, count, rank, model, optimizer, file = sys.argv[1:]
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(address, int(count), int(rank))
    assert jax.process_count() == int(count)
    assert jax.device_count() == 2 * int(count)
    mesh = jax.make_mesh((jax.device_count(),), ("batch",), axis_types=(AxisType.Auto,))
    np.savez(file, *trained_params(model, optimizer, mesh))
