"""How long an optimizer's step takes, and how near it is to what the memory allows.

Claim: a step of LPSGDM, with its power for each coordinate, costs no more than one of AdamW.

Setting: parameters with the shapes of a ResNet-50 for ImageNet (161 arrays, 25.6 million) and of a Llama
(111, 100 million), random gradients, weight decay, buffers donated; compiled three times, then timed in 40
rounds in which all steps take turns in a new order. State in float32 unless bfloat16 is named. PyTorch's
AdamW takes part if PyTorch is installed. The memory's speed is that of a x + y in the same rounds.

    python -m benchmarks step_time --output benchmarks/results/step_time

Result (Python 3.11.7, JAX 0.10.2, PyTorch 2.13.0, 2 CPUs, n = 40; medians, on the arrays of ResNet-50): in
times of AdamW's step SGD with momentum takes 0.58, LPSGDM with a scheduled p 0.92, STACEY(3,2) 1.41,
STACEY(3,3) 2.70, Lion 1.78, Muon 12.2; PyTorch's AdamW 0.63. LPSGDM moves 24 bytes for each parameter,
the compiler says, of which 20 are needed, and takes 1.71 times as long as a x + y for these 20. At unit RMS
it takes 1.94: the norm has to be known before a parameter moves, so that all is read again, 44 bytes with
those of a branch that is hardly ever taken. With state in bfloat16 the CPU takes longer, for AdamW too
(1.57), but not for Lion. It is compiling that costs: 1.99 times AdamW's time for LPSGDM, 2.44 and 5.63 times
for STACEY, as a step has 71, 82 and 243 operations for each parameter, AdamW's 15.
"""

import functools
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import lpoptax
from benchmarks.models.registry import build_model
from benchmarks.reporting.figures import write_figure
from benchmarks.reporting.tables import write_csv
from benchmarks.reporting.timing import interleaved
from benchmarks.studies.step_time_report import EXPLANATION, REFERENCES, draw, table

ROUNDS, WARM_UP, COMPILATIONS = 40, 5, 3
Tree = Any  # of arrays, or of their shapes.

P = lpoptax.cosine_p_schedule(p_max=6.0, total_steps=100_000)
SETTINGS: dict[str, Any] = {"learning_rate": 1e-3, "weight_decay": 1e-4}
HALF: dict[str, Any] = {"mu_dtype": jnp.bfloat16}
OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "SGD with momentum": lambda: optax.sgd(1e-3, momentum=0.9),
    "AdamW": lambda: optax.adamw(**SETTINGS),
    "Lion": lambda: optax.lion(**SETTINGS),
    "Muon": lambda: optax.contrib.muon(**SETTINGS),
    "LPSGDM, p = 3": lambda: lpoptax.lpsgdm(p=3.0, **SETTINGS),
    "LPSGDM, p 6 → 2": lambda: lpoptax.lpsgdm(p=P, **SETTINGS),
    "LPSGDM, p 6 → 2, unit RMS": lambda: lpoptax.lpsgdm(p=P, normalization="rms", **SETTINGS),
    "STACEY(3,2)": lambda: lpoptax.stacey(p=3.0, **SETTINGS),
    "STACEY(3,3)": lambda: lpoptax.stacey(p=3.0, mirror_p=3.0, **SETTINGS),
    "AdamW, bfloat16": lambda: optax.adamw(**SETTINGS, **HALF),
    "Lion, bfloat16": lambda: optax.lion(**SETTINGS, **HALF),
    "LPSGDM, p 6 → 2, bfloat16": lambda: lpoptax.lpsgdm(p=P, accumulator_dtype=jnp.bfloat16, **SETTINGS),
    "STACEY(3,2), bfloat16": lambda: lpoptax.stacey(p=3.0, **SETTINGS, **HALF),
}
AXPY = "a x + y"
TORCH = "AdamW of PyTorch, fused"


class Step(NamedTuple):
    """A step to be timed: a function that does it once, and what is known of it."""

    run: Callable[[], None]
    least: float  # bytes for each parameter that it has to move: what it reads and writes.
    state: float  # bytes for each parameter.
    moved: float | None = None  # bytes for each parameter that the compiler has it move, if it tells.
    flops: float | None = None  # for each parameter.
    compilation: float | None = None  # seconds.


def resnet50() -> Tree:
    """Returns the shapes of the parameters of a ResNet-50 for ImageNet."""
    return _shapes("resnet50", (224, 224, 3), 1000)


def llama() -> Tree:
    """Returns the shapes of the parameters of a Llama of a hundred million parameters."""
    return _shapes("llama100m", (256,), 32_000)


TREES = {"ResNet-50": resnet50, "Llama, 100 M": llama}


def _shapes(model: str, shape: tuple[int, ...], classes: int) -> Tree:
    return nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: build_model(model, shape, classes)), nnx.Param))


def measure(shapes: Tree, quick: bool) -> dict[str, tuple[Step, list[float]]]:
    """Returns each step with its times, taken in rounds in which all take turns in a new order."""
    grads = random_tree(shapes, 0)  # which all share: they are read only.
    steps = {name: compiled(build(), grads) for name, build in OPTIMIZERS.items()}
    steps[AXPY] = axpy(grads)
    if (torch := torch_adamw(shapes)) is not None:
        steps[TORCH] = torch
    rounds, warm_up = (2, 1) if quick else (ROUNDS, WARM_UP)
    times = interleaved({name: step.run for name, step in steps.items()}, rounds, warm_up)
    return {name: (step, times[name]) for name, step in steps.items()}


def compiled(optimizer: optax.GradientTransformation, grads: Tree) -> Step:
    """Returns an optimizer's step, which its buffers are donated to."""

    def step(params: Tree, state: Tree, grads: Tree) -> tuple[Tree, Tree]:
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params = random_tree(grads, 1)
    return _step(step, (params, jax.jit(optimizer.init)(params)), grads)


def axpy(grads: Tree) -> Step:
    """Returns a step that reads two arrays and writes one: what the memory allows."""

    def step(y: Tree, x: Tree) -> tuple[Tree]:
        return (jax.tree.map(lambda a, b: a + 1e-3 * b, y, x),)

    return _step(step, (random_tree(grads, 1),), grads)


def _step(function: Callable[..., Any], donated: tuple[Tree, ...], grads: Tree) -> Step:
    program, seconds = _compile(function, (*donated, grads), len(donated))
    size, costs = _size(grads), program.cost_analysis() or {}
    kept = [donated]

    def run() -> None:
        kept[0] = jax.block_until_ready(program(*kept[0], grads))  # type: ignore[no-untyped-call]

    return Step(
        run,
        least=(2 * _bytes(donated) + _bytes(grads)) / size,
        state=_bytes(donated[1:]) / size,
        moved=costs["bytes accessed"] / size if "bytes accessed" in costs else None,
        flops=costs["flops"] / size if "flops" in costs else None,
        compilation=seconds,
    )


def _compile(function: Callable[..., Any], arguments: tuple[Tree, ...], donated: int) -> tuple[Any, float]:
    """Returns the compiled function and the median of the times that this takes."""
    times = []
    for index in range(COMPILATIONS):
        if index:  # from the second on nothing is known of the functions that are called.
            jax.clear_caches()  # type: ignore[no-untyped-call]
        begin = time.perf_counter()
        program = jax.jit(function, donate_argnums=range(donated)).lower(*arguments).compile()
        times.append(time.perf_counter() - begin)
    return program, statistics.median(times)


def torch_adamw(shapes: Tree) -> Step | None:
    """Returns the step of PyTorch's AdamW, on the CPU and if PyTorch is installed."""
    try:
        import torch
    except ImportError:
        return None
    if jax.devices()[0].platform != "cpu":
        return None
    params = [torch.nn.Parameter(1e-2 * torch.randn(leaf.shape)) for leaf in jax.tree.leaves(shapes)]
    for param in params:
        param.grad = 1e-2 * torch.randn(param.shape)
    optimizer = torch.optim.AdamW(params, lr=1e-3, weight_decay=1e-4, fused=True)
    return Step(lambda: (optimizer.step(), None)[1], least=28.0, state=8.0)


def random_tree(shapes: Tree, seed: int) -> Tree:
    """Returns normal numbers, as small as gradients and parameters are."""
    generator = np.random.default_rng(seed)
    draw = functools.partial(generator.standard_normal, dtype=np.float32)
    return jax.tree.map(lambda leaf: jnp.asarray(1e-2 * draw(leaf.shape)), shapes)


def _size(tree: Tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _bytes(tree: Tree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def rows_of(tree: str, measured: Mapping[str, tuple[Step, list[float]]]) -> list[dict[str, Any]]:
    """Returns a row for each step: its time, the ratios, and what the compiler tells."""
    median = {name: statistics.median(times) for name, (_, times) in measured.items()}
    stream = median[AXPY] / measured[AXPY][0].least  # seconds for a byte of each parameter.
    reference = measured[REFERENCES[0]][0].compilation
    assert reference is not None
    rows = []
    for name, (step, times) in measured.items():
        low, _, high = statistics.quantiles(times, n=4)
        rows.append(
            {
                "parameters": tree,
                "step": name,
                "n": len(times),
                "ms": 1000 * median[name],
                "lower quartile, ms": 1000 * low,
                "upper quartile, ms": 1000 * high,
                **{f"/ {other}": median[name] / median[other] for other in REFERENCES},
                "/ memory": median[name] / (stream * step.least),
                "bytes moved": step.moved,
                "least bytes": step.least,
                "flops": step.flops,
                "state, bytes": step.state,
                "compilation, s": step.compilation,
                "compilation / AdamW": step.compilation and step.compilation / reference,
            }
        )
    return rows


def run(quick: bool, folder: Path) -> str:
    """Times all steps on all trees, and writes a table and a picture."""
    rows = []
    for name, shapes_of in TREES.items():
        print(f"{name}: compiling {len(OPTIMIZERS)} steps, then timing them", file=sys.stderr)
        shapes = {"w": jnp.zeros((64, 64))} if quick else shapes_of()
        rows += rows_of(name, measure(shapes, quick))
    write_csv(folder / "step_time.csv", rows)
    write_figure(folder / "step_time.png", draw(rows))
    cut = ", cut small" if quick else ""
    tables = "\n\n".join(
        f"## {name}{cut}\n\n{table([row for row in rows if row['parameters'] == name])}" for name in TREES
    )
    pytorch = f" PyTorch is {version('torch')}." if any(row["step"] == TORCH for row in rows) else ""
    return f"{tables}\n\n{EXPLANATION}{pytorch}"
