"""Programs for TPUs that are not there: compiled by their own compiler, ahead of time."""

import math
import os
import time
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import jax
import numpy as np
import optax
from jax.experimental.topologies import get_topology_desc
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from benchmarks.config.settings import SettingsError
from benchmarks.reporting.programs import COLLECTIVES, Program

GIB = 2**30
Tree = Any  # of arrays, or of their shapes.

# That libtpu asks no server where it is, and that several processes may load it.
ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}


def prepare() -> None:
    """Lets this process, which must not have computed anything yet, compile for TPUs and look for none."""
    os.environ.update(ENVIRONMENT)
    jax.config.update("jax_platforms", "cpu")  # type: ignore[no-untyped-call]


def check_libtpu() -> None:
    """Refuses to go on without libtpu."""
    if find_spec("libtpu") is None:
        raise SettingsError(
            "compiling for TPUs needs libtpu, which is not installed; pip install '.[accelerators]' brings it"
        )


def mesh_of(topology: str, axes: Mapping[str, int]) -> Mesh:
    """Returns the first chips of a slice as a mesh with axes of these names and lengths."""
    check_libtpu()
    try:
        devices = get_topology_desc(platform="tpu", topology_name=topology).devices
    except jax.errors.JaxRuntimeError as error:
        text = f"the topology must be one that libtpu knows, such as v5e:4x4 or v5p:8x8x16, got {topology!r}"
        raise SettingsError(text) from error
    chips = math.prod(axes.values())
    if chips > len(devices):
        raise SettingsError(f"{topology} has {len(devices)} chips, and {dict(axes)} needs {chips}")
    grid: Any = np.array(devices[:chips]).reshape(*axes.values())
    return Mesh(grid, tuple(axes), axis_types=(AxisType.Auto,) * len(axes))


def sharding(shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
    """Returns how an array is divided: by each axis of the mesh along the longest axis that it divides."""
    names: list[str | None] = [None] * len(shape)
    for name, chips in mesh.shape.items():
        free = [axis for axis, size in enumerate(shape) if names[axis] is None and size % chips == 0]
        if free:
            names[max(free, key=shape.__getitem__)] = name
    return NamedSharding(mesh, PartitionSpec(*names))  # type: ignore[no-untyped-call]


def placed(tree: Tree, mesh: Mesh) -> Tree:
    """Returns the shapes of a tree's arrays, divided over a mesh."""

    def place(leaf: Any) -> Any:
        where = sharding(leaf.shape, mesh)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)  # type: ignore[no-untyped-call]

    return jax.tree.map(place, tree)


def compiled_update(
    optimizer: optax.GradientTransformation, shapes: Tree, mesh: Mesh
) -> tuple[jax.stages.Compiled, float]:
    """Returns an optimizer's step, its buffers donated, and the CPU's seconds that it took to compile."""

    def step(params: Tree, state: Tree, grads: Tree) -> tuple[Tree, Tree]:
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params = placed(shapes, mesh)
    state = placed(jax.eval_shape(optimizer.init, params), mesh)
    begin = time.process_time()
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params).compile()
    return compiled, time.process_time() - begin


def measured(compiled: jax.stages.Compiled) -> dict[str, float]:
    """Returns what the compiler tells of a program, for each chip."""
    memory: Any = compiled.memory_analysis()
    work = Program(compiled.as_text() or "").work
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return {
        "HBM, bytes": work.hbm_bytes,
        "cycles": work.cycles,
        "peak, GiB": (peak + memory.temp_size_in_bytes) / GIB,
        "temporaries, GiB": memory.temp_size_in_bytes / GIB,
        **{kind: work.collectives[kind] for kind in COLLECTIVES},
        **{f"{kind}, bytes": work.sent[kind] for kind in COLLECTIVES},
    }
