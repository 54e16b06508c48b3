"""Whole training steps of the papers, compiled for one chip: the trainer's step, without data."""

import time
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from benchmarks.config.schedules import build_optimizer
from benchmarks.config.selection import select
from benchmarks.config.settings import Settings
from benchmarks.data.batches import Batch
from benchmarks.data.entries import Text
from benchmarks.data.registry import DATASETS, Dataset, Split
from benchmarks.data.text import C4
from benchmarks.reporting.topologies import compiled_update, measured, mesh_of, placed
from benchmarks.studies.compiled_programs import SLICES, limit, refusal, verdict
from benchmarks.training.step import Program, TrainState, arguments, initial, train_step

EXAMPLES = 1_281_167  # of ImageNet; how many there are decides schedules, but no size.


class Training(NamedTuple):
    """A preset of a paper, and what its network computes in."""

    paper: str
    dataset: str
    model: str
    optimizer: str
    dtype: str


IMAGENET, LLAMA = ("imagenet2012", "resnet50"), ("c4", "llama100m")
TRAININGS = [
    *(Training("lpsgdm", *IMAGENET, name, "float32") for name in ("adamw", "lpsgdm")),
    *(Training("stacey", *IMAGENET, "stacey_pp", dtype) for dtype in ("float32", "bfloat16")),
    *(Training("stacey", *LLAMA, name, "float32") for name in ("adamw", "stacey_pp")),
]


def _dataset(name: str) -> Dataset:
    """Returns what a step needs to know of a dataset, without its files."""
    split, known = cast(Split, range(EXAMPLES)), DATASETS[name]
    if isinstance(known, Text):
        return Dataset(split, split, C4.VOCABULARY, (C4.LENGTH,), objective=known.objective)
    return Dataset(split, split, known.classes, known.shape, known.mean, known.std, known.augment)


def _start(settings: Settings, dataset: Dataset) -> tuple[Program, TrainState]:
    """Returns the program of a run, and the shapes of the state before its first step."""
    programs = []

    def state() -> TrainState:
        program, first = initial(settings, dataset)
        programs.append(program)
        return first

    shapes = jax.eval_shape(state)
    return programs[0], shapes


def _batch(settings: Settings, dataset: Dataset) -> Batch:
    number = (settings.batch_size,)
    is_text = not dataset.mean
    inputs = jnp.zeros(number + dataset.shape, jnp.int32 if is_text else jnp.uint8)
    return Batch(inputs, jnp.zeros(inputs.shape if is_text else number, jnp.int32), jnp.zeros(number))


def measure(training: Training, seconds: int) -> dict[str, Any]:
    """Compiles a training step and the optimizer's part of it; returns what the compiler tells of both."""
    limit(seconds)
    place = SLICES["1 v5e"]
    mesh = mesh_of(place.topology, place.axes)
    settings = _settings(training)
    dataset = _dataset(training.dataset)
    program, state = _start(settings, dataset)
    others = jax.eval_shape(lambda: (_batch(settings, dataset), arguments(settings), 0, 0))
    step = jax.jit(partial(train_step, program), donate_argnames="state")
    begin = time.process_time()
    try:
        whole = measured(step.lower(*placed((state, *others), mesh)).compile())
        took = time.process_time() - begin
        update, _ = compiled_update(build_optimizer(settings, program.steps_per_epoch), state.params, mesh)
    except jax.errors.JaxRuntimeError as error:
        return {"batch size": settings.batch_size, "fits": refusal(error)}
    finally:
        limit(0)
    return {
        "batch size": settings.batch_size,
        "fits": verdict(whole["peak, GiB"], place.memory),
        **whole,
        "cycles of the optimizer": measured(update)["cycles"],
        "compilation, CPU s": took,
    }


def _settings(training: Training) -> Settings:
    paper, dataset, model, optimizer, dtype = training
    return select(dataset, model, [optimizer], [0], {"dtype": [dtype]}, paper=paper)[0]
