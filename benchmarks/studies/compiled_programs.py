"""What the study of compiled steps compiles: optimizers and networks for slices of TPUs."""

import math
import signal
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import lpoptax
from benchmarks.config.matrices import hidden_matrices
from benchmarks.models.llama import Llama, Size
from benchmarks.models.registry import build_model
from benchmarks.reporting.topologies import Tree, compiled_update, measured, mesh_of, prepare
from benchmarks.studies import step_time
from benchmarks.studies.step_time import HALF, SETTINGS, P


class Slice(NamedTuple):
    """Chips, and how arrays are divided over them."""

    topology: str  # as libtpu calls it; there is none of one chip.
    axes: dict[str, int]
    memory: float  # GiB of a chip's HBM that programs may use.


V5E, V5P = 15.75, 95.74
SLICES = {
    "1 v5e": Slice("v5e:2x2", {"data": 1}, V5E),
    "4 v5e": Slice("v5e:2x2", {"data": 4}, V5E),
    "16 v5e": Slice("v5e:4x4", {"data": 16}, V5E),
    "256 v5e": Slice("v5e:16x16", {"data": 256}, V5E),
    "16 x 16 v5e": Slice("v5e:16x16", {"data": 16, "model": 16}, V5E),
    "1 v5p": Slice("v5p:2x2x1", {"data": 1}, V5P),
    "1,024 v5p": Slice("v5p:8x8x16", {"data": 1024}, V5P),
}


def chips_of(name: str) -> int:
    """Returns how many chips a slice has."""
    return math.prod(SLICES[name].axes.values())


def _llama(*size: int) -> Callable[[], nnx.Module]:
    options: dict[str, Any] = {"shape": (256,), "classes": 32_000, "dtype": jnp.float32}
    return lambda: Llama(Size(*size), **options, rngs=nnx.Rngs(0))


NETWORKS: dict[str, Callable[[], nnx.Module]] = {
    **{name: partial(build_model, *network) for name, network in step_time.TREES.items()},
    # Sizes as in GaLore's and Llama's papers.
    "Llama, 1.3 B": _llama(24, 2048, 32, 5461),
    "Llama, 6.7 B": _llama(32, 4096, 32, 11_008),
    "two matrices": lambda: nnx.List([nnx.Linear(256, 256, use_bias=False, rngs=nnx.Rngs(0)) for _ in "ab"]),
}


def shapes_of(network: str) -> Tree:
    """Returns the shapes of a network's parameters."""
    return nnx.to_pure_dict(nnx.state(nnx.eval_shape(NETWORKS[network]), nnx.Param))


Build = Callable[[Mesh], optax.GradientTransformation]


def _on_any(name: str) -> Build:
    return lambda mesh: step_time.OPTIMIZERS[name]


def _schatten(**options: Any) -> Build:
    def build(mesh: Mesh) -> optax.GradientTransformation:
        return lpoptax.schatten_sgdm(p=6.0, weight_dimension_numbers=hidden_matrices, **SETTINGS, **options)

    return build


def _schatten_by_matrix(mesh: Mesh) -> optax.GradientTransformation:
    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))  # type: ignore[no-untyped-call]
    return _schatten(precision="default", batch_sharding=sharding)(mesh)


WHOLE = "Schatten SGDM, bfloat16 products, whole matrices"  # needs more than one chip.
COORDINATEWISE: dict[str, Build] = {
    **{name: _on_any(name) for name in ("SGD with momentum", "AdamW", "Lion")},
    "LPSGD, p 6 → 2": lambda mesh: lpoptax.lpsgd(p=P, **SETTINGS),
    **{name: _on_any(name) for name in ("LPSGDM, p = 3", "LPSGDM, p 6 → 2", "LPSGDM, p 6 → 2, unit RMS")},
    "LPSGDM, p 6 → 2, unit RMS by leaf": lambda mesh: lpoptax.lpsgdm(
        p=P, normalization="rms", per_leaf=True, **SETTINGS
    ),
    "STACEY(2,3)": lambda mesh: lpoptax.stacey(p=2.0, mirror_p=3.0, **SETTINGS),
    **{name: _on_any(name) for name in ("STACEY(3,2)", "STACEY(3,3)", "LPSGDM, p 6 → 2, bfloat16")},
    "STACEY(3,3), bfloat16": lambda mesh: lpoptax.stacey(p=3.0, mirror_p=3.0, **SETTINGS, **HALF),
}
OF_MATRICES: dict[str, Build] = {
    "Schatten SGDM, bfloat16 products": _schatten(precision="default"),
    WHOLE: _schatten_by_matrix,
    "Schatten SGDM": _schatten(),
    "Muon of Optax": lambda mesh: optax.contrib.muon(
        muon_weight_dimension_numbers=hidden_matrices, **SETTINGS
    ),
}
OPTIMIZERS = COORDINATEWISE | OF_MATRICES


class Cell(NamedTuple):
    """A row of the table: what is compiled for what."""

    chips: str
    parameters: str
    optimizer: str


def begin() -> None:
    """Makes this process one that compiles, and that a key ends at once."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    prepare()
    first = SLICES["1 v5e"]  # the first program takes longer than the same one later.
    compiled_update(optax.sgd(1.0), {"w": jnp.zeros(128)}, mesh_of(first.topology, first.axes))


def limit(seconds: int) -> None:
    """Ends this process after so many seconds of a processor, with 0 never."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def measure(cell: Cell, seconds: int) -> dict[str, Any]:
    """Compiles an optimizer's step, and returns what the compiler tells.

    The process ends if that takes more seconds of a processor than these.
    """
    limit(seconds)
    place = SLICES[cell.chips]
    mesh, shapes = mesh_of(place.topology, place.axes), shapes_of(cell.parameters)
    jax.clear_caches()  # type: ignore[no-untyped-call]  # so that all compile as if they were the first.
    number = {"parameters of it": sum(leaf.size for leaf in jax.tree.leaves(shapes))}
    try:
        compiled, time = compiled_update(OPTIMIZERS[cell.optimizer](mesh), shapes, mesh)
        found = {**measured(compiled), "compilation, CPU s": time}
    except jax.errors.JaxRuntimeError as error:
        return number | {"fits": refusal(error)}
    finally:
        limit(0)
    return number | {"fits": verdict(found["peak, GiB"], place.memory), **found}


def verdict(peak: float, memory: float) -> str:
    """Says whether a program fits a chip."""
    return "yes" if peak <= memory else f"no, needs {peak:.1f} of {memory:.2f} GiB"


def refusal(error: Exception) -> str:
    """Returns what the compiler says of a program that fits no chip; another error is raised again."""
    text = " ".join(str(error).split())
    if "RESOURCE_EXHAUSTED" not in text:
        raise error
    return "no, the compiler says: " + text.removeprefix("RESOURCE_EXHAUSTED: ").split(". ")[0].rstrip(".")
