"""Checking and evaluating hyperparameters.

The value of a Python number or NumPy scalar is checked. That of an array is not, since it
may be traced, and a schedule has none before the first step.
"""

import math
import numbers
from collections.abc import Callable
from typing import Any, TypeGuard

import jax
import optax
from jax.typing import ArrayLike


def is_number(value: object) -> TypeGuard[float]:
    """Says whether `value` is a plain number, known before tracing."""
    return isinstance(value, numbers.Real)


def check(
    name: str,
    value: Any,
    is_allowed: Callable[[Any], bool],
    allowed: str,
    *,
    may_be_schedule: bool = False,
) -> None:
    """Raises a `ValueError` if `value` is a number that is not allowed, or no number at all."""
    if callable(value):
        is_fine = may_be_schedule
    elif is_number(value):
        is_fine = is_allowed(value)
    else:
        is_fine = getattr(value, "ndim", None) == 0  # an array
    if not is_fine:
        raise ValueError(f"{name} must be {allowed}, got {name}={value!r}.")


def check_p(name: str, value: Any, *, may_be_schedule: bool = True) -> None:
    allowed = "greater than 1 (infinity included)"
    check(name, value, lambda v: v > 1, allowed, may_be_schedule=may_be_schedule)


def check_finite_p(name: str, value: Any, *, may_be_schedule: bool = True) -> None:
    allowed = "greater than 1 and finite"
    check(name, value, lambda v: 1 < v < math.inf, allowed, may_be_schedule=may_be_schedule)


def check_non_negative(name: str, value: Any, *, may_be_schedule: bool = False) -> None:
    allowed = "non-negative and finite"
    check(name, value, lambda v: 0 <= v < math.inf, allowed, may_be_schedule=may_be_schedule)


def check_decay_rate(name: str, value: Any) -> None:
    check(name, value, lambda v: 0 <= v < 1, "at least 0 and below 1")


def check_learning_rate(value: Any) -> None:
    check("learning_rate", value, lambda v: True, "a number or a schedule", may_be_schedule=True)


def check_steps(name: str, value: Any) -> None:
    check(name, value, lambda v: v >= 1 and float(v).is_integer(), "a whole number, at least 1")


def evaluate(value: optax.ScalarOrSchedule, count: jax.Array) -> ArrayLike:
    """Returns the value at step `count` of a schedule, or the number itself."""
    current: ArrayLike = value(count) if callable(value) else value
    return current
