"""How long an optimizer's step takes, and how near it is to what the memory allows.

Claim: a step of LPSGDM, with its power for each coordinate, costs no more than one of AdamW.

Setting: parameters with the shapes of a ResNet-50 for ImageNet (161 arrays, 25.6 million) and of a Llama
(111, 100 million), random gradients, weight decay, buffers donated; compiled three times, then timed in 40
rounds in which all steps take turns in a new order. State in float32 unless bfloat16 is named. PyTorch's
AdamW takes part if PyTorch is installed. The memory's speed is that of a x + y in the same rounds.

    python -m benchmarks step_time --output benchmarks/results/step_time

A second table is of the same command where glibc's allocator keeps memory, after `export MALLOC_ARENA_MAX=1
MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=16000000000`, in `benchmarks/results/step_time_memory_kept`.

Result (Python 3.11.7, JAX 0.10.2, PyTorch 2.13.0, 2 CPUs, n = 40; medians, on the arrays of ResNet-50): in
times of AdamW's step SGD with momentum takes 0.65, LPSGDM with a scheduled p 0.87, STACEY(3,2) 1.34,
STACEY(3,3) 2.73, Lion 1.84, Schedule-Free AdamW 2.27, Muon 16.4, Schatten SGDM 18.9; PyTorch's AdamW 0.66.
On the Llama Schatten SGDM takes 1.08 times as long as Muon, in two rounds. At unit RMS LPSGDM takes 2.32 and
with state in bfloat16 1.59; with memory kept 1.46 and 1.07, as the system clears that of temporaries.
It is compiling that costs: 2.24 times AdamW's time for LPSGDM, 3.05 and 7.21 times for STACEY, as a step has
64, 75 and 230 operations for each parameter, AdamW's 15.
"""

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from flax import nnx
from matplotlib.figure import Figure

import lpoptax
from benchmarks.models.registry import build_model
from benchmarks.reporting.figures import COLORS, write_figure
from benchmarks.reporting.tables import table_of, write_csv
from benchmarks.reporting.timing import interleaved

ROUNDS, WARM_UP, COMPILATIONS = 40, 5, 3
Tree = Any  # of arrays, or of their shapes.

P = lpoptax.cosine_p_schedule(p_max=6.0, total_steps=100_000)
SETTINGS: dict[str, Any] = {"learning_rate": 1e-3, "weight_decay": 1e-4}
HALF: dict[str, Any] = {"mu_dtype": jnp.bfloat16}
REFERENCES = ("AdamW", "SGD with momentum")
AXPY = "a x + y"
TORCH = "AdamW of PyTorch, fused"
OPTIMIZERS: dict[str, optax.GradientTransformation] = {
    "SGD with momentum": optax.sgd(1e-3, momentum=0.9),
    "AdamW": optax.adamw(**SETTINGS),
    "Lion": optax.lion(**SETTINGS),
    "Muon": optax.contrib.muon(**SETTINGS),
    "Schedule-Free AdamW": optax.contrib.schedule_free_adamw(**SETTINGS),
    "LPSGDM, p = 3": lpoptax.lpsgdm(p=3.0, **SETTINGS),
    "LPSGDM, p 6 → 2": lpoptax.lpsgdm(p=P, **SETTINGS),
    "LPSGDM, p 6 → 2, unit RMS": lpoptax.lpsgdm(p=P, normalization="rms", **SETTINGS),
    "STACEY(3,2)": lpoptax.stacey(p=3.0, **SETTINGS),
    "STACEY(3,3)": lpoptax.stacey(p=3.0, mirror_p=3.0, **SETTINGS),
    "Schatten SGDM, p = 6": lpoptax.schatten_sgdm(p=6.0, **SETTINGS),
    "Schatten SGDM, p 6 → 2": lpoptax.schatten_sgdm(p=P, **SETTINGS),
    "AdamW, bfloat16": optax.adamw(**SETTINGS, **HALF),
    "Lion, bfloat16": optax.lion(**SETTINGS, **HALF),
    "LPSGDM, p 6 → 2, bfloat16": lpoptax.lpsgdm(p=P, accumulator_dtype=jnp.bfloat16, **SETTINGS),
    "STACEY(3,2), bfloat16": lpoptax.stacey(p=3.0, **SETTINGS, **HALF),
    AXPY: optax.sgd(-1e-3),  # reads two arrays and writes one: what the memory allows.
}
# Model, shape of an example, and number of classes.
TREES = {"ResNet-50": ("resnet50", (224, 224, 3), 1000), "Llama, 100 M": ("llama100m", (256,), 32_000)}
MS, LOWER, UPPER = "ms", "lower quartile, ms", "upper quartile, ms"
DIGITS = {
    0: ["n", "flops"],
    1: ["bytes moved", "least bytes", "temporaries, bytes", "state, bytes", "compilation, s"],
    2: ["/ AdamW", "/ SGD with momentum", "/ memory", "compilation / AdamW"],
}
EXPLANATION = (
    "Median ± half of the interquartile range of n rounds in which all steps take turns; those of more than "
    "a second take part in every tenth. `/ memory` is the time over that of a x + y for as many bytes as a "
    "step has to move: to read parameters, state and gradients, and to write parameters and state. It is no "
    "strict bound, as XLA runs a x + y array by array. Bytes and flops are for each parameter; what is moved "
    "and computed is what the compiler tells, which counts one turn of a loop, as Schatten SGDM has one. XLA "
    "on CPU asks for the memory of temporaries anew at each step, and the system clears it, unless the "
    "allocator keeps it."
)


Step = Callable[[], None]  # does it once.
Known = dict[str, float]  # what is known of it, bytes and flops for each parameter.


def shapes_of(model: str, shape: tuple[int, ...], classes: int) -> Tree:
    """Returns the shapes of a network's parameters."""
    return nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: build_model(model, shape, classes)), nnx.Param))


def measure(shapes: Tree, quick: bool) -> pd.DataFrame:
    """Times each step, in rounds in which all take turns in a new order."""
    grads = random_tree(shapes, 0)  # which all share: they are read only.
    steps = {name: compiled(optimizer, grads) for name, optimizer in OPTIMIZERS.items()}
    if (torch := torch_adamw(shapes)) is not None:
        steps[TORCH] = torch
    rounds, warm_up = (2, 1) if quick else (ROUNDS, WARM_UP)
    times = interleaved({name: step for name, (step, _) in steps.items()}, rounds, warm_up)
    return frame_of({name: known for name, (_, known) in steps.items()}, times)


def compiled(optimizer: optax.GradientTransformation, grads: Tree) -> tuple[Step, Known]:
    """Returns an optimizer's step, which its buffers are donated to."""

    def step(params: Tree, state: Tree, grads: Tree) -> tuple[Tree, Tree]:
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params = random_tree(grads, 1)
    kept = [(params, jax.jit(optimizer.init)(params))]
    times = []
    for index in range(COMPILATIONS):
        if index:  # from the second on nothing is known of the functions that are called.
            jax.clear_caches()  # type: ignore[no-untyped-call]
        begin = time.perf_counter()
        program = jax.jit(step, donate_argnums=(0, 1)).lower(*kept[0], grads).compile()
        times.append(time.perf_counter() - begin)

    def run() -> None:
        kept[0] = jax.block_until_ready(program(*kept[0], grads))  # type: ignore[no-untyped-call]

    size = optax.tree.size(grads)
    costs = {name: cost / size for name, cost in (program.cost_analysis() or {}).items()}
    memory = program.memory_analysis()
    return run, {
        "bytes moved": costs.get("bytes accessed", np.nan),  # as the compiler says, if it does.
        "least bytes": (2 * _bytes(kept) + _bytes(grads)) / size,  # to be read and written.
        "temporaries, bytes": memory.temp_size_in_bytes / size if memory else np.nan,
        "flops": costs.get("flops", np.nan),
        "state, bytes": _bytes(kept[0][1]) / size,
        "compilation, s": statistics.median(times),
    }


def torch_adamw(shapes: Tree) -> tuple[Step, Known] | None:
    """Returns the step of PyTorch's AdamW, on the CPU and if PyTorch is installed."""
    if find_spec("torch") is None or jax.default_backend() != "cpu":
        return None
    import torch

    params = [torch.nn.Parameter(1e-2 * torch.randn(leaf.shape)) for leaf in jax.tree.leaves(shapes)]
    for param in params:
        param.grad = 1e-2 * torch.randn(param.shape)
    optimizer = torch.optim.AdamW(params, lr=1e-3, weight_decay=1e-4, fused=True)
    return (lambda: (optimizer.step(), None)[1]), {"least bytes": 28.0, "state, bytes": 8.0}


def random_tree(shapes: Tree, seed: int) -> Tree:
    """Returns normal numbers, as small as gradients and parameters are."""
    generator = np.random.default_rng(seed)

    def array(leaf: Any) -> jax.Array:
        return jnp.asarray(1e-2 * generator.standard_normal(leaf.shape, np.float32))

    return jax.tree.map(array, shapes)


def _bytes(tree: Tree) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def frame_of(steps: Mapping[str, Known], times: Mapping[str, list[float]]) -> pd.DataFrame:
    """Returns a row for each step: its time, the ratios, and what is known of it."""
    known = pd.DataFrame(steps.values(), steps)
    quartiles = [statistics.quantiles(taken, n=4) for taken in times.values()]
    frame = pd.DataFrame(quartiles, times, columns=[LOWER, MS, UPPER])
    median = frame[MS]
    stream = median[AXPY] / known["least bytes"][AXPY]  # seconds for a byte of each parameter.
    return pd.DataFrame(
        {
            "n": [len(taken) for taken in times.values()],
            **1000 * frame[[MS, LOWER, UPPER]],
            **{f"/ {other}": median / median[other] for other in REFERENCES},
            "/ memory": median / (stream * known["least bytes"]),
            **known,
            "compilation / AdamW": known["compilation, s"] / known["compilation, s"]["AdamW"],
        }
    )


def table(frame: pd.DataFrame) -> str:
    """Returns the rows as a Markdown table."""
    half = (frame[UPPER] - frame[LOWER]) / 2
    cells = frame.drop(columns=["parameters", MS, LOWER, UPPER])
    cells.insert(1, MS, frame[MS].map("{:.1f} ± ".format) + half.map("{:.1f}".format))
    for digits, names in DIGITS.items():
        cells[names] = frame[names].map(f"{{:.{digits}f}}".format).replace("nan", "")
    cells.columns = cells.columns.str.replace(" with momentum", "").str.replace("compilation", "compile")
    return table_of(cells)


def draw(frame: pd.DataFrame) -> Figure:
    """Returns the times relative to AdamW as bars, each with a mark for a x + y of as many bytes."""
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    panels = figure.subplots(1, len(TREES), sharey=True)
    for axes, (tree, there) in zip(panels, frame.groupby("parameters", sort=False), strict=True):
        there = there[::-1]
        ratios = there["/ AdamW"]
        limit = 1.15 * ratios[~there.step.str.match("Muon|Schatten")].max()
        colors = np.where(there.step.str.match("LPSGDM|STACEY|Schatten"), COLORS[0], "silver")
        spread = [abs(there[quartile] - there[MS]) * ratios / there[MS] for quartile in (LOWER, UPPER)]
        axes.barh(there.step, ratios, xerr=spread, color=colors, error_kw={"linewidth": 1})
        floors = {"color": "black", "markersize": 12, "label": "a x + y, for as many bytes"}
        axes.plot(ratios / there["/ memory"], there.step, "|", **floors)
        axes.axvline(1, color="black", linewidth=0.8, linestyle=":")
        for name, ratio in zip(there.step, ratios, strict=True):
            if ratio > limit:
                axes.text(limit, name, f"{ratio:.0f} ", ha="right", va="center")
        axes.set(title=tree, xlabel="time of a step / that of AdamW", xlim=(0, limit))
    axes.legend(loc="lower right", fontsize="small")
    return figure


def run(quick: bool, folder: Path) -> str:
    """Times all steps on all trees, and writes a table and a picture."""
    frames = {}
    for name, network in TREES.items():
        print(f"{name}: compiling {len(OPTIMIZERS)} steps, then timing them", file=sys.stderr)
        shapes = {"w": jnp.zeros((64, 64))} if quick else shapes_of(*network)
        frames[name] = measure(shapes, quick)
    frame = pd.concat(frames, names=["parameters", "step"]).reset_index()
    write_csv(folder / "step_time.csv", frame)
    write_figure(folder / "step_time.png", draw(frame))
    return page(frame, ", cut small" if quick else "")


def page(frame: pd.DataFrame, cut: str) -> str:
    """Returns a table for each tree, and how to read it."""
    tables = [f"## {name}{cut}\n\n{table(there)}" for name, there in frame.groupby("parameters", sort=False)]
    pytorch = f" PyTorch is {version('torch')}." if (frame.step == TORCH).any() else ""
    return "\n\n".join([*tables, EXPLANATION + pytorch])
