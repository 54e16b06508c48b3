"""The table that the contract tests run over: a row here gets all of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import lpoptax


class Row(NamedTuple):
    """An optimizer with its settings."""

    factory: Callable[..., optax.GradientTransformation]
    settings: dict[str, Any]
    p_names: tuple[str, ...] = ("p",)  # the settings that are norms.
    static_args: tuple[str, ...] = ()  # what inject_hyperparams must leave alone.
    learning_rate: float = 1e-3  # one that converges on the test functions.
    lowest_p: float = 1.5  # of those to test.

    def build(self, **changes):
        """Returns the optimizer, with some settings replaced."""
        return self.factory(**{"learning_rate": self.learning_rate, **self.settings, **changes})

    def with_p(self, p):
        """Returns the optimizer with `p` as all of its norms."""
        return self.build(**dict.fromkeys(self.p_names, p))


def power_chain(learning_rate, p):
    return optax.chain(lpoptax.scale_by_lp_power(p), optax.scale_by_learning_rate(learning_rate))


def steepest_chain(learning_rate, p):
    return optax.chain(lpoptax.scale_by_lp_steepest_descent(p), optax.scale_by_learning_rate(learning_rate))


def schatten_chain(learning_rate, p):
    return optax.chain(lpoptax.scale_by_schatten_power(p), optax.scale_by_learning_rate(learning_rate))


def momentum_chain(learning_rate, b1, b2):
    momentum = lpoptax.scale_by_interpolated_momentum(b1, b2)
    return optax.chain(momentum, optax.scale_by_learning_rate(learning_rate))


def mirror(learning_rate, p):
    return optax.chain(lpoptax.mirror_descent(learning_rate, p))


def coupled_sgd(learning_rate, p, tau):
    return lpoptax.stacey_coupling(optax.sgd(learning_rate), lpoptax.mirror_descent(learning_rate, p), tau)


def coupled_adamw(learning_rate, p, tau, weight_decay=0.0):
    primal = optax.adamw(learning_rate, weight_decay=weight_decay)
    return lpoptax.stacey_coupling(primal, lpoptax.mirror_descent(learning_rate, p), tau)


def coupled_with_decay(learning_rate, p, tau, weight_decay, weight_decay_mask):
    coupled = coupled_sgd(learning_rate, p, tau)
    # What follows the coupling adds to an update that includes the learning rate.
    return optax.chain(coupled, optax.add_decayed_weights(-learning_rate * weight_decay, weight_decay_mask))


def matrices(params):
    """A mask that is True for what has more than one dimension."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def strong_schedule(step):
    """A float32 that would promote half precision, as linear and warm-up schedules return."""
    return jnp.full_like(step, 1e-3, dtype=jnp.float32)


COSINE = lpoptax.cosine_p_schedule(6.0, 1000)
MASKED = {"weight_decay": 1e-4, "weight_decay_mask": matrices}
MASK = ("weight_decay_mask",)

ROWS = {
    "lpsgd": Row(lpoptax.lpsgd, {"p": 3.0}),
    "lpsgd gradual": Row(lpoptax.lpsgd, {"p": lpoptax.gradual_p_schedule(1000)}),
    "lpsgd below 2": Row(lpoptax.lpsgd, {"p": 1.8}),
    "lpsgd decay": Row(lpoptax.lpsgd, {"p": 3.0, "weight_decay": 1e-4}),
    "lpsgdm": Row(lpoptax.lpsgdm, {"p": 3.0}),
    "lpsgdm cosine": Row(lpoptax.lpsgdm, {"p": COSINE}),
    "lpsgdm sign": Row(lpoptax.lpsgdm, {"p": jnp.inf, "eps": 0.0}, learning_rate=5e-4),
    "lpsgdm mask": Row(lpoptax.lpsgdm, {"p": COSINE, **MASKED}, static_args=MASK),
    "lpsgdm scheduled": Row(
        lpoptax.lpsgdm, {"p": COSINE, "learning_rate": strong_schedule, "weight_decay": strong_schedule}
    ),
    "stacey p,2": Row(lpoptax.stacey, {"p": 3.0, "alpha": 1e-3}),
    "stacey p,p": Row(lpoptax.stacey, {"p": 3.0, "mirror_p": 3.0, "alpha": 2e-3}, p_names=("p", "mirror_p")),
    "stacey 2,p": Row(
        lpoptax.stacey, {"p": 2.0, "mirror_p": 3.0, "alpha": 1e-3, "tau": 0.1}, p_names=("mirror_p",)
    ),
    "stacey cosine": Row(
        lpoptax.stacey,
        {"p": COSINE, "mirror_p": COSINE, "alpha": 1e-3, "tau": 0.01},
        p_names=("p", "mirror_p"),
    ),
    "stacey mask": Row(lpoptax.stacey, {"p": 3.0, "alpha": 1e-3, **MASKED}, static_args=MASK),
    "stacey scheduled": Row(
        lpoptax.stacey,
        {"p": COSINE, "learning_rate": strong_schedule, "alpha": strong_schedule, "weight_decay": 1e-4},
    ),
    "lpsgdm half": Row(
        lpoptax.lpsgdm, {"p": 3.0, "accumulator_dtype": jnp.bfloat16}, static_args=("accumulator_dtype",)
    ),
    "stacey single": Row(
        lpoptax.stacey,
        {"p": 3.0, "alpha": 1e-3, "mu_dtype": jnp.float32, "z_dtype": jnp.float32},
        static_args=("mu_dtype", "z_dtype"),
    ),
    "lpsgdm rms": Row(lpoptax.lpsgdm, {"p": COSINE, "normalization": "rms", "weight_decay": 1e-4}),
    "lpsgdm rms per leaf": Row(lpoptax.lpsgdm, {"p": 3.0, "normalization": "rms", "per_leaf": True}),
    "lpsgd rms below 2": Row(lpoptax.lpsgd, {"p": 1.5, "normalization": "rms"}),
    "schatten": Row(lpoptax.schatten_sgdm, {"p": jnp.inf}, lowest_p=2.5),
    # With Nesterov's momentum signs cross a narrow valley in each step, which the tests of convergence have.
    "schatten cosine": Row(
        lpoptax.schatten_sgdm, {"p": COSINE, "weight_decay": 1e-4, "nesterov": False}, lowest_p=2.5
    ),
    "schatten mask": Row(
        lpoptax.schatten_sgdm, {"p": 3.0, "vector_p": COSINE, **MASKED}, static_args=MASK, lowest_p=2.5
    ),
    "schatten half": Row(
        lpoptax.schatten_sgdm,
        {"p": 3.0, "accumulator_dtype": jnp.bfloat16},
        static_args=("accumulator_dtype",),
        lowest_p=2.5,
    ),
    "schatten power": Row(schatten_chain, {"p": COSINE}, lowest_p=2.5),
    "power": Row(power_chain, {"p": 3.0}),
    "steepest": Row(steepest_chain, {"p": 3.0}),
    "steepest below 2": Row(steepest_chain, {"p": 1.5}),
    "steepest cosine": Row(steepest_chain, {"p": COSINE}),
    "momentum": Row(momentum_chain, {"b1": 0.9, "b2": 0.99}, p_names=()),
    "mirror": Row(mirror, {"p": 3.0}),
    "coupled sgd": Row(coupled_sgd, {"p": 2.0, "tau": 0.1}),
    "coupled sgd mask": Row(coupled_with_decay, {"p": 2.0, "tau": 0.1, **MASKED}, static_args=MASK),
    "coupled adamw": Row(coupled_adamw, {"p": 3.0, "tau": 0.1}),
    "coupled adamw decay": Row(coupled_adamw, {"p": 3.0, "tau": 0.1, "weight_decay": 1e-4}),
}

# One row of each kind, for what depends on the kind and not on the settings.
KINDS = [
    "lpsgd gradual",
    "lpsgdm cosine",
    "lpsgdm sign",
    "lpsgdm rms",
    "lpsgd rms below 2",
    "stacey p,p",
    "steepest below 2",
    "steepest cosine",
    "mirror",
    "stacey mask",
    "schatten cosine",
]
