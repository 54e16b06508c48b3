"""One process of several that train the small ResNet together: ADDRESS COUNT RANK FILE.

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


def trained_params(mesh=None):
    """Returns the leaves of the parameters after one epoch of batches of 60."""
    dataset = DATASETS["digits"]()
    optimizer = build(OPTIMIZERS["lpsgdm"], 15)
    run = train("resnet8", dataset, dataset.validation, optimizer, epochs=1, batch_size=60, seed=0, mesh=mesh)
    try:
        while True:
            next(run)
    except StopIteration as finished:
        return [np.asarray(leaf) for leaf in jax.tree.leaves(finished.value.params)]


if __name__ == "__main__":
    address, count, rank, file = sys.argv[1:]
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(address, int(count), int(rank))
    assert jax.process_count() == int(count)
    assert jax.device_count() == 2 * int(count)
    mesh = jax.make_mesh((jax.device_count(),), ("batch",), axis_types=(AxisType.Auto,))
    np.savez(file, *trained_params(mesh))
