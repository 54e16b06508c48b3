"""The optimizers, by name, built from the settings of a run."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import optax

import lpoptax
from benchmarks.config.matrices import MATRICES
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
    # From state and parameters those to evaluate, if they are not those that are trained.
    evaluated: Callable[[optax.OptState, Any], Any] = lambda state, params: params


def _coupled(inner: Callable[[Settings, optax.Schedule], Transformation]) -> Build:
    """Adds the decay to the gradient, as PyTorch does for these."""

    def build(settings: Settings, rate: optax.Schedule, p: P, mask: optax.MaskOrFn) -> Transformation:
        del p
        decay = optax.add_decayed_weights(settings.weight_decay, mask)
        return optax.chain(decay, inner(settings, rate))

    return build


def _adamw(settings: Settings, rate: optax.Schedule, p: P, mask: optax.MaskOrFn) -> Transformation:
    del p
    b1, b2, eps = own(settings, "b1", "b2", "eps")
    return optax.adamw(rate, b1, b2, eps, weight_decay=settings.weight_decay, mask=mask)


def _nadamw(settings: Settings, rate: optax.Schedule, p: P, mask: optax.MaskOrFn) -> Transformation:
    del p
    b1, b2, eps = own(settings, "b1", "b2", "eps")
    return optax.nadamw(rate, b1, b2, eps, weight_decay=settings.weight_decay, mask=mask)


def _schedule_free_adamw(
    settings: Settings, rate: optax.Schedule, p: P, mask: optax.MaskOrFn
) -> Transformation:
    del p
    b1, b2, eps = own(settings, "b1", "b2", "eps")
    # As optax.contrib.schedule_free_adamw, which takes no mask.
    adamw = optax.chain(
        optax.scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True),
        optax.add_decayed_weights(settings.weight_decay, mask),
        optax.scale_by_learning_rate(rate),
    )
    return optax.contrib.schedule_free(adamw, rate, b1)


def _lion(settings: Settings, rate: optax.Schedule, p: P, mask: optax.MaskOrFn) -> Transformation:
    del p
    b1, b2 = own(settings, "b1", "b2")
    return optax.lion(rate, b1, b2, weight_decay=settings.weight_decay, mask=mask)


def _lpsgd(settings: Settings, rate: optax.Schedule, p: P, mask: optax.MaskOrFn) -> Transformation:
    (eps,) = own(settings, "eps")
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
    b1, eps = own(settings, "b1", "eps")
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


def _schatten_sgdm(settings: Settings, rate: optax.Schedule, p: P, mask: optax.MaskOrFn) -> Transformation:
    b1, eps, matrices, nesterov = own(settings, "b1", "eps", "matrices", "nesterov")
    return lpoptax.schatten_sgdm(
        rate,
        p,
        b1,
        eps,
        settings.weight_decay,
        nesterov=nesterov,
        weight_decay_mask=mask,
        weight_dimension_numbers=MATRICES[matrices],
    )


def _muon(settings: Settings, rate: optax.Schedule, p: P, mask: optax.MaskOrFn) -> Transformation:
    del p
    b1, b2, eps, matrices = own(settings, "b1", "b2", "eps", "matrices")
    # A matrix's step has 0.2 of the root mean square of a sign, which is about that of AdamW's.
    muon = optax.contrib.muon(
        1.0,
        beta=b1,
        eps=eps,
        adam_b2=b2,
        muon_weight_dimension_numbers=MATRICES[matrices],
        consistent_rms=0.2,
    )
    # Its own decay would not be masked where Adam takes the step.
    return optax.chain(
        muon, optax.add_decayed_weights(-settings.weight_decay, mask), optax.scale_by_schedule(rate)
    )


def _stacey(primal: float | None, mirror: float | None) -> Build:
    """Returns STACEY with the given norms, None standing for p."""

    def build(settings: Settings, rate: optax.Schedule, p: P, mask: optax.MaskOrFn) -> Transformation:
        b1, b2, eps, alpha, tau = own(settings, "b1", "b2", "eps", "alpha", "tau")
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


def own(settings: Settings, *names: str) -> tuple[Any, ...]:
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
        _coupled(lambda s, rate: optax.sgd(rate, *own(s, "b1"))),
        _defaults("b1"),
        norm=2.0,
    ),
    "sgd_nesterov": Optimizer(
        "SGD with Nesterov momentum",
        _coupled(lambda s, rate: optax.sgd(rate, *own(s, "b1"), nesterov=True)),
        _defaults("b1"),
        norm=2.0,
    ),
    "adam": Optimizer("Adam", _coupled(lambda s, rate: optax.adam(rate, *own(s, "b1", "b2", "eps"))), _ADAM),
    "adamw": Optimizer("AdamW", _adamw, _ADAM),
    "nadamw": Optimizer("NAdamW", _nadamw, _ADAM),
    "schedule_free_adamw": Optimizer(
        "Schedule-Free AdamW",
        _schedule_free_adamw,
        _ADAM,
        evaluated=optax.contrib.schedule_free_eval_params,
    ),
    "lion": Optimizer("Lion", _lion, _defaults("b1", "b2"), norm=math.inf),
    "lpsgd": Optimizer("LPSGD", _lpsgd, _ANNEALED, anneals=True),
    "lpsgdm": Optimizer("LPSGDM", _lpsgdm, {**_ANNEALED, **_defaults("b1")}, anneals=True),
    "gsgd": Optimizer("GSGD", _lpsgd, {**_defaults("eps"), **_LENGTH}, norm=math.inf, anneals=True),
    "schatten_sgdm": Optimizer(
        "Schatten SGDM",
        _schatten_sgdm,
        {**_defaults("p", "b1", "eps", "anneal"), "p_final": None, "matrices": "all", "nesterov": True},
        anneals=True,
    ),
    "muon": Optimizer(
        "Muon", _muon, {**_defaults("eps"), "b1": 0.95, "b2": 0.999, "matrices": "hidden"}, norm=math.inf
    ),
    "stacey_p2": Optimizer("STACEY(p,2)", _stacey(None, 2.0), _STACEY),
    "stacey_pp": Optimizer("STACEY(p,p)", _stacey(None, None), _STACEY),
    "stacey_2p": Optimizer("STACEY(2,p)", _stacey(2.0, None), _STACEY),
}
