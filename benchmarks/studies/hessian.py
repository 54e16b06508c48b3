"""The spectrum of the Hessian over training: is curvature anisotropic early and flat late?

That is the premise of LPSGDM (its Fig. 1): early in training the Hessian has a few large
eigenvalues, positive and negative; late all are near zero, and the negative ones are gone. From it
the paper concludes that p should be large early and 2 late.

Here resnet8 learns the digits for 20 epochs (3 seeds), resnet8_stride2 Fashion-MNIST for 4 (1 seed),
with five optimizers, each at the learning rate that tuning chose (presets.csv). At initialisation
and after some epochs the Hessian of the training loss is measured on fixed images, 4 batches of 50 or
2 of 128, without augmentation: stochastic Lanczos quadrature with 32 steps from 2 directions, and
8 products with random signs for the coordinates. BatchNorm takes the statistics of each batch, as in
the loss that the optimizers descend; the running statistics, that evaluation takes, are of nothing yet
at initialisation. Convolutions are computed as matrix products, which on CPUs is faster.

Two things are told apart. Flatness is the scale of the Hessian: its extreme eigenvalues and its norm
‖H‖ (Frobenius). Anisotropy is without scale: φ(x) = ‖x‖₁²/(d ‖x‖₂²) is 1 where d numbers are of one
magnitude and 1/d where one stands out. It is measured of the eigenvalues (d φ(λ) is the effective
number of directions that curve), of the coordinates' curvatures cᵢ = ‖H eᵢ‖, which matter to descent
in lp norms, and of the gradient. By a rule of thumb from bounds of signSGD a sign descends better than a
gradient where φ(g) exceeds √φ(c); c stands in for the diagonal above the Hessian that the bounds have.

    python -m benchmarks hessian --output benchmarks/results/hessian

continues where it was interrupted, run by run. Result (77,754 parameters; from initialisation to the last
epoch, means of the seeds, the range over the optimizers; the runs of a seed share their initial parameters;
Python 3.11.7, JAX 0.10.2, Flax 0.12.8, matfree 0.6.3, two x86 CPUs):

- Flat late: yes, in 15 of 15 runs on the digits and 5 of 5 on Fashion-MNIST. On the digits ‖H‖ falls from 89
  to between 0.16 (LPSGDM) and 2.9 (STACEY), and the largest eigenvalue from 6.3 to between 0.14 and 1.4,
  though with Lion and STACEY it first rises to 11; the training loss falls to between 0.0005 and 0.008. On
  Fashion-MNIST, where the loss ends at 0.2 to 0.27, ‖H‖ falls from 47 to between 1.5 (Lion) and 15 (STACEY),
  nearly all of it in the first epoch; the largest eigenvalue, 5.4 at first, ends between 2.1 and 12.7.
- Convex late: nearly. The smallest eigenvalue goes from -10 to between -0.08 and -0.004 on the digits, from
  -15 to between -0.36 and -0.02 on Fashion-MNIST, 1 to 6 % of the largest; it stays below 0.
- Anisotropic early: no, in none of the 20 runs; anisotropy grows. On the digits 9,000 effective directions
  become between 460 (LPSGDM) and 2,100 (STACEY), and φ(c) falls from 0.65 to between 0.27 and 0.50; on
  Fashion-MNIST 5,900 become between 16 (Lion) and 4,900 (SGD), and φ(c) falls from 0.58 to between 0.01 and
  0.39.
- A large p early: undecided. φ(g)/√φ(c) falls in 13 of 15 runs on the digits, from 0.47 to between 0.39 and
  0.48, and rises in 3 of 5 on Fashion-MNIST, from 0.39 to between 0.12 and 0.66. It is below 1 in all
  measurements but one (STACEY on Fashion-MNIST, 1.15).

So the picture of the paper's figure returns, but not, by these measures, what the paper reads in it: it is
the scale of the curvature that shrinks, and not its anisotropy. Two directions of 32 steps estimate φ(λ)
roughly: at initialisation the three seeds of the digits have 5,600 to 15,000 effective directions.
"""

import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks.config.selection import select
from benchmarks.config.settings import Settings
from benchmarks.data.augmentation import normalise
from benchmarks.data.registry import Dataset
from benchmarks.models.convolutions import with_matrix_products
from benchmarks.reporting.figures import write_figure
from benchmarks.studies.hessian_report import answer, curves, densities, frame_of, table
from benchmarks.training.records import PACKAGES, ResultsFolder, measured_with
from benchmarks.training.runner import complete
from benchmarks.training.step import Program, TrainState, Variables
from lpoptax import curvature

OPTIMIZERS = ("sgdm", "adamw", "lion", "lpsgdm", "stacey_p2")


class Effort(NamedTuple):
    """How much is spent on each measurement."""

    batches: int  # of the training's size, fixed: their images make up the loss.
    num_steps: int = 32  # Lanczos steps.
    num_samples: int = 2  # directions that Lanczos starts from.
    num_signs: int = 8  # products for the curvature of the coordinates.


class Study(NamedTuple):
    """A network on a dataset, and the epochs after which its curvature is measured."""

    dataset: str
    model: str
    epochs: tuple[int, ...]
    seeds: int
    effort: Effort
    optimizers: tuple[str, ...] = OPTIMIZERS
    settings: Mapping[str, list[Any]] = MappingProxyType({})  # that replace those of the presets.


STUDIES = (
    Study("digits", "resnet8", (0, 1, 3, 8, 20), 3, Effort(4)),
    Study("fashion_mnist", "resnet8_stride2", (0, 1, 2, 3, 4), 1, Effort(2)),
)
QUICK = (
    Study(
        "digits",
        "resnet4",
        epochs=(0, 1),
        seeds=1,
        effort=Effort(2, num_steps=4, num_samples=1, num_signs=2),
        optimizers=("lpsgdm",),
        settings={"batch_size": [48], "epochs": [1], "learning_rate": [0.03]},
    ),
)
P = {"lpsgdm": [6.0]}  # of several that have presets.


def runs(study: Study) -> list[Settings]:
    """Returns the settings of the study's runs: those of the presets."""
    chosen: list[Settings] = []
    for name in study.optimizers:
        named = {**study.settings, "p": P[name]} if name in P else study.settings
        chosen += select(study.dataset, study.model, [name], range(study.seeds), named)
    return chosen


def measure(
    study: Study, settings: Settings, dataset: Dataset, epoch: int, program: Program, state: TrainState
) -> dict[str, Any]:
    """Returns what is measured after an epoch, if it is one of the study's."""
    if epoch not in study.epochs:
        return {}
    images, labels = fixed_batches(settings, dataset, study.effort)
    network = with_matrix_products(program.evaluated, state.params, state.model_state)
    of_network = compiled_measurement(network, program.mean, program.std, study.effort)
    return _plain(of_network(state.params, state.model_state, images, labels, jax.random.key(settings.seed)))


def fixed_batches(settings: Settings, dataset: Dataset, effort: Effort) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first training images [batches, n, height, width, channels] and labels [batches, n]."""
    shape = (effort.batches, settings.batch_size)
    images, labels = dataset.train.load(np.arange(math.prod(shape)), None)
    return images.reshape(*shape, *images.shape[1:]), labels.reshape(shape)


@functools.lru_cache(maxsize=2)
def compiled_measurement(
    graphdef: nnx.GraphDef[Any], mean: tuple[float, ...], std: tuple[float, ...], effort: Effort
) -> Callable[..., dict[str, jax.Array]]:
    """Returns the measurement of a network's curvature on given batches."""

    @jax.jit
    def measure(
        params: Variables, model_state: Variables, images: jax.Array, labels: jax.Array, key: jax.Array
    ) -> dict[str, jax.Array]:
        def of_batch(params: Variables, images: jax.Array, labels: jax.Array) -> jax.Array:
            model = nnx.merge(graphdef, params, model_state, copy=True)
            model.train()
            logits = model(normalise(images, mean, std))
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

        def loss(params: Variables) -> jax.Array:
            return jnp.mean(jax.vmap(of_batch, (None, 0, 0))(params, images, labels))

        value, gradient = jax.value_and_grad(loss)(params)
        spectrum = curvature.hessian_spectrum(
            loss, params, key, num_steps=effort.num_steps, num_samples=effort.num_samples
        )
        coordinates = curvature.coordinate_curvature(loss, params, key, num_samples=effort.num_signs)
        return {
            "loss": value,
            "gradient_norm": optax.tree.norm(gradient),
            "gradient_evenness": curvature.evenness(gradient),
            "coordinate_evenness": curvature.evenness(coordinates),
            **curvature.summary(spectrum)._asdict(),
            **spectrum._asdict(),
        }

    return measure


def _plain(measured: dict[str, jax.Array]) -> dict[str, Any]:
    """Returns numbers for JSON, of as many digits as mean something."""
    return {name: _rounded(np.asarray(value).tolist()) for name, value in measured.items()}


def _rounded(value: Any) -> Any:
    return [_rounded(part) for part in value] if isinstance(value, list) else float(f"{value:.5g}")


def run(quick: bool, folder: Path) -> str:
    """Measures what the folder lacks; writes figures and numbers, and returns the answers."""
    return "\n\n".join(_report(study, folder) for study in (QUICK if quick else STUDIES))


def _report(study: Study, folder: Path) -> str:
    """Measures what is missing; writes a study's figures and numbers, and returns its answer."""
    found = complete(runs(study), ResultsFolder(folder / "runs"), functools.partial(measure, study))
    frame = frame_of(found)
    heading = f"{study.model} on {study.dataset}, "
    mean = "1 seed" if study.seeds == 1 else f"{study.seeds} seeds, mean"
    title = heading + (mean if study.seeds == 1 else f"{mean} ± standard deviation")
    write_figure(folder / f"{study.dataset}-density.png", densities(frame, heading + mean))
    write_figure(folder / f"{study.dataset}-curves.png", curves(frame, title))
    # Where the runs were measured, which need not be here.
    versions = measured_with((run.environment for run in found), PACKAGES)
    page = f"# {title}\n\n{table(frame)}\n\n{answer(frame)}\n\n{versions}\n"
    ResultsFolder(folder).write_text(f"{study.dataset}.md", page)
    return f"## {title}\n\n{answer(frame)}"
