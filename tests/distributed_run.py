"""One process of several that train a model together: ADDRESS COUNT RANK MODEL OPTIMIZER FILE [FOLDER].

Each has two devices, or one if there is a FOLDER for checkpoints, and loads its part of every
batch. Writes its copy of the trained parameters to FILE.
"""

import sys
from pathlib import Path

import jax
import numpy as np

from benchmarks.config.settings import Settings
from benchmarks.training.checkpoints import Checkpoints
from benchmarks.training.loop import all_devices
from tests.checkpointed_run import finish, start

# At a larger p the power would enlarge the rounding errors of small gradients more.
TUNED = {"lpsgdm": {"learning_rate": 0.1, "p": 2.5}, "sgdm": {"learning_rate": 0.3}}


def trained_params(model, optimizer, mesh=None, folder=None):
    """Returns the leaves of the parameters after an epoch of batches of 60, or eight with checkpoints."""
    settings = Settings(
        "digits",
        model,
        optimizer,
        batch_size=60,
        epochs=8 if folder else 1,
        held_out="validation",
        **TUNED[optimizer],
    )
    checkpoints = Checkpoints(Path(folder), settings.plain()) if folder else None
    run = start(checkpoints, settings, mesh)
    _, state = finish(run)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state.params)]


if __name__ == "__main__":
    address, count, rank, model, optimizer, file, *folder = sys.argv[1:]
    devices = 1 if folder else 2
    jax.config.update("jax_num_cpu_devices", devices)
    jax.distributed.initialize(address, int(count), int(rank))
    assert jax.process_count() == int(count)
    assert jax.device_count() == devices * int(count)
    np.savez(file, *trained_params(model, optimizer, all_devices(), *folder))
