"""The optimizers, by name, built from the settings of a run."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import optax

import lpoptax
from benchmarks.config.settings import Settings

P: TypeAlias = optax.ScalarOrSchedule
Transformation: TypeAlias = optax.GradientTransformation
Build = Callable[[Settings, optax.Schedule, P, optax.MaskOrFn], Transformation]
DEFAULTS = {"p": 6.0, "b1": 0.9, "b2": 0.99, "eps": 1e-8, "alpha": 0.01, "tau": 0.001, "anneal": "epoch"}


class Optimizer(NamedTuple):
    """How to build an optimizer from settings, learning rate, p and the mask of the weight decay."""

    label: str
    build: Build
    takes: dict[str, Any]  # the hyperparameters of its own, and their defaults.
    norm: float | None = None  # where the optimizer takes no p: that of its steps, if it has one.
    anneals: bool = False  # lowers p, to 2 unless told otherwise.


def _coupled(inner: Callable[[Settings, optax.Schedule], Transformation]) -> Build:
    """Adds the decay to the gradient, as PyTorch does for these."""

    def build(settings: Settings, rate: optax.Schedule, p: P, mask: optax.MaskOrFn) -> Transformation:
        del p
        decay = optax.add_decayed_weights(settings.weight_decay, mask)
        return optax.chain(decay, inner(settings, rate))

    return build


def _adamw(settings: Settings, rate: optax.Schedule, p: P, mask: optax.MaskOrFn) -> Transformation:
    del p
    b1, b2, eps = _own(settings, "b1", "b2", "eps")
    return optax.adamw(rate, b1, b2, eps, weight_decay=settings.weight_decay, mask=mask)


def _lion(settings: Settings, rate: optax.Schedule, p: P, mask: optax.MaskOrFn) -> Transformation:
    del p
    b1, b2 = _own(settings, "b1", "b2")
    return optax.lion(rate, b1, b2, weight_decay=settings.weight_decay, mask=mask)


def _lpsgd(settings: Settings, rate: optax.Schedule, p: P, mask: optax.MaskOrFn) -> Transformation:
    (eps,) = _own(settings, "eps")
    return lpoptax.lpsgd(
        rate,
        p,
        eps,
        settings.weight_decay,
        weight_decay_mask=mask,
        normalization=settings.normalization,
        per_leaf=bool(settings.per_leaf),
    )


def _lpsgdm(settings: Settings, rate: optax.Schedule, p: P, mask: optax.MaskOrFn) -> Transformation:
    b1, eps = _own(settings, "b1", "eps")
    return lpoptax.lpsgdm(
        rate,
        p,
        b1,
        eps,
        settings.weight_decay,
        weight_decay_mask=mask,
        normalization=settings.normalization,
        per_leaf=bool(settings.per_leaf),
    )


def _stacey(primal: float | None, mirror: float | None) -> Build:
    """Returns STACEY with the given norms, None standing for p."""

    def build(settings: Settings, rate: optax.Schedule, p: P, mask: optax.MaskOrFn) -> Transformation:
        b1, b2, eps, alpha, tau = _own(settings, "b1", "b2", "eps", "alpha", "tau")
        return lpoptax.stacey(
            rate,
            p if primal is None else primal,
            mirror_p=p if mirror is None else mirror,
            alpha=alpha,
            tau=tau,
            b1=b1,
            b2=b2,
            eps=eps,
            weight_decay=settings.weight_decay,
            weight_decay_mask=mask,
        )

    return build


def _own(settings: Settings, *names: str) -> tuple[Any, ...]:
    """Returns hyperparameters of the optimizer, or their defaults."""
    takes = OPTIMIZERS[settings.optimizer].takes
    named = {name: getattr(settings, name) for name in names}
    return tuple(takes[name] if value is None else value for name, value in named.items())


def _defaults(*names: str, **others: float) -> dict[str, Any]:
    return {**{name: DEFAULTS[name] for name in names}, **others}


_ADAM = _defaults("b1", "eps", b2=0.999)
# None: p falls to 2, and steps are as long as published.
_LENGTH: dict[str, Any] = {"normalization": None, "per_leaf": None}
_ANNEALED = {**_defaults("p", "eps", "anneal"), "p_final": None, **_LENGTH}
_STACEY = _defaults("b1", "b2", "eps", "alpha", "tau", p=3.0)

OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Optimizer("SGD", _coupled(lambda s, rate: optax.sgd(rate)), {}, norm=2.0),
    "sgdm": Optimizer(
        "SGD with momentum",
        _coupled(lambda s, rate: optax.sgd(rate, *_own(s, "b1"))),
        _defaults("b1"),
        norm=2.0,
    ),
    "sgd_nesterov": Optimizer(
        "SGD with Nesterov momentum",
        _coupled(lambda s, rate: optax.sgd(rate, *_own(s, "b1"), nesterov=True)),
        _defaults("b1"),
        norm=2.0,
    ),
    "adam": Optimizer("Adam", _coupled(lambda s, rate: optax.adam(rate, *_own(s, "b1", "b2", "eps"))), _ADAM),
    "adamw": Optimizer("AdamW", _adamw, _ADAM),
    "lion": Optimizer("Lion", _lion, _defaults("b1", "b2"), norm=math.inf),
    "lpsgd": Optimizer("LPSGD", _lpsgd, _ANNEALED, anneals=True),
    "lpsgdm": Optimizer("LPSGDM", _lpsgdm, {**_ANNEALED, **_defaults("b1")}, anneals=True),
    "gsgd": Optimizer("GSGD", _lpsgd, {**_defaults("eps"), **_LENGTH}, norm=math.inf, anneals=True),
    "stacey_p2": Optimizer("STACEY(p,2)", _stacey(None, 2.0), _STACEY),
    "stacey_pp": Optimizer("STACEY(p,p)", _stacey(None, None), _STACEY),
    "stacey_2p": Optimizer("STACEY(2,p)", _stacey(2.0, None), _STACEY),
}


class Schedules(NamedTuple):
    """What changes with the step."""

    learning_rate: optax.Schedule
    p: P | None


def schedules(settings: Settings, steps_per_epoch: int) -> Schedules:
    """Returns the learning rate and p."""
    total = settings.epochs * steps_per_epoch
    return Schedules(_learning_rate(settings, total), _p(settings, total, steps_per_epoch))


def _learning_rate(settings: Settings, total_steps: int) -> optax.Schedule:
    if settings.schedule == "constant":
        return optax.constant_schedule(settings.learning_rate)
    warmup = total_steps // 20 if settings.warmup_steps is None else settings.warmup_steps
    return optax.warmup_cosine_decay_schedule(
        0.0, settings.learning_rate, warmup_steps=warmup, decay_steps=total_steps
    )


def _p(settings: Settings, total_steps: int, steps_per_epoch: int) -> P | None:
    optimizer = OPTIMIZERS[settings.optimizer]
    if settings.optimizer == "gsgd":
        return lpoptax.gradual_p_schedule(total_steps)
    if "p" not in optimizer.takes:
        return optimizer.norm
    (p,) = _own(settings, "p")
    if not optimizer.anneals or p == settings.p_final:
        return p
    (anneal,) = _own(settings, "anneal")
    return lpoptax.cosine_p_schedule(
        p,
        total_steps,
        p_final=final_p(settings),
        steps_per_epoch=steps_per_epoch if anneal == "epoch" else 1,
    )


def final_p(settings: Settings) -> float:
    """Returns where an optimizer that anneals p ends."""
    return 2.0 if settings.p_final is None else settings.p_final


def build_optimizer(settings: Settings, steps_per_epoch: int) -> optax.GradientTransformation:
    """Returns the optimizer of the run: the same object for every seed, so that they share a program."""
    return _build(dataclasses.replace(settings, seed=0), steps_per_epoch)


@functools.lru_cache(maxsize=8)
def _build(settings: Settings, steps_per_epoch: int) -> optax.GradientTransformation:
    learning_rate, p = schedules(settings, steps_per_epoch)
    mask = _is_kernel if settings.decay == "kernels" else None
    return OPTIMIZERS[settings.optimizer].build(settings, learning_rate, p, mask)


def _is_kernel(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
