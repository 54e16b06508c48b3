"""The optimizers, by name, and the settings that the benchmarks run them with."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import optax

import lpoptax

P: TypeAlias = optax.ScalarOrSchedule
Transformation: TypeAlias = optax.GradientTransformation
Build = Callable[[optax.Schedule, float, P], Transformation]


class Optimizer(NamedTuple):
    """How to build an optimizer, and its settings for the digits."""

    label: str
    build: Build  # from learning rate, weight decay and p.
    p: float | None  # the norm; None for a method that is not of the lp family.
    p_final: float | None  # where a cosine takes p; None for a constant p.
    learning_rate: float  # the peak.
    weight_decay: float


def _sgdm(learning_rate: optax.Schedule, weight_decay: float, p: P) -> Transformation:
    del p
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate, momentum=0.9))


def _adamw(learning_rate: optax.Schedule, weight_decay: float, p: P) -> Transformation:
    del p
    return optax.adamw(learning_rate, weight_decay=weight_decay)


def _lion(learning_rate: optax.Schedule, weight_decay: float, p: P) -> Transformation:
    del p
    return optax.lion(learning_rate, weight_decay=weight_decay)


def _lpsgdm(learning_rate: optax.Schedule, weight_decay: float, p: P) -> Transformation:
    return lpoptax.lpsgdm(learning_rate, p, weight_decay=weight_decay)


def _stacey_p2(learning_rate: optax.Schedule, weight_decay: float, p: P) -> Transformation:
    return lpoptax.stacey(learning_rate, p, weight_decay=weight_decay)


def _stacey_pp(learning_rate: optax.Schedule, weight_decay: float, p: P) -> Transformation:
    return lpoptax.stacey(learning_rate, p, mirror_p=p, weight_decay=weight_decay)


def _stacey_2p(learning_rate: optax.Schedule, weight_decay: float, p: P) -> Transformation:
    return lpoptax.stacey(learning_rate, 2.0, mirror_p=p, weight_decay=weight_decay)


# The two last columns are what `python -m benchmarks tune` chose on the validation images
# (benchmarks/results/tune): the same grid for each, everything else left at its default.
OPTIMIZERS: dict[str, Optimizer] = {
    #                    label                build       p         p_final  learning_rate  weight_decay
    "sgdm": Optimizer("SGD with momentum", _sgdm, 2.0, None, 0.3, 0.0),
    "adamw": Optimizer("AdamW", _adamw, None, None, 0.03, 0.01),
    "lion": Optimizer("Lion", _lion, math.inf, None, 0.0003, 0.01),
    "lpsgdm": Optimizer("LPSGDM", _lpsgdm, 6.0, 2.0, 0.01, 0.0),
    "stacey_p2": Optimizer("STACEY(p,2)", _stacey_p2, 3.0, None, 0.3, 0.01),
    "stacey_pp": Optimizer("STACEY(p,p)", _stacey_pp, 3.0, None, 0.01, 0.0),
    "stacey_2p": Optimizer("STACEY(2,p)", _stacey_2p, 3.0, None, 1.0, 0.0),
}


def build(optimizer: Optimizer, total_steps: int) -> optax.GradientTransformation:
    """Returns the optimizer with its settings; its learning rate warms up, then follows a cosine to 0."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, optimizer.learning_rate, warmup_steps=total_steps // 20, decay_steps=total_steps
    )
    return optimizer.build(schedule, optimizer.weight_decay, _p_schedule(optimizer, total_steps))


def describe(optimizer: Optimizer, epochs: int, steps_per_epoch: int) -> dict[str, Any]:
    """Returns the settings in plain data, with p at the start of each epoch where it is finite."""
    p = _p_schedule(optimizer, epochs * steps_per_epoch)
    starts = np.arange(epochs) * steps_per_epoch
    by_epoch = p(starts).tolist() if callable(p) else [p] * epochs
    return {
        "label": optimizer.label,
        "p": _p_text(optimizer),
        "learning_rate": optimizer.learning_rate,
        "weight_decay": optimizer.weight_decay,
        "p_by_epoch": [round(value, 4) for value in by_epoch if value is not None and math.isfinite(value)],
    }


def _p_schedule(optimizer: Optimizer, total_steps: int) -> optax.ScalarOrSchedule | None:
    if optimizer.p is None or optimizer.p_final is None:
        return optimizer.p
    return lpoptax.cosine_p_schedule(optimizer.p, total_steps, p_final=optimizer.p_final)


def _p_text(optimizer: Optimizer) -> str:
    if optimizer.p is None:
        return "none"
    start = "∞" if math.isinf(optimizer.p) else f"{optimizer.p:g}"
    return start if optimizer.p_final is None else f"{start} → {optimizer.p_final:g}"
