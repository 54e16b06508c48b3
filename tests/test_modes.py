"""The modes of JAX that people work and debug in: nothing breaks in them, and no alarm is false."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import checkify

from tests.helpers import random_problem
from tests.optimizers import KINDS, ROWS

ROOT = Path(__file__).parents[1]
every_kind = pytest.mark.parametrize("name", KINDS)


@pytest.mark.slow
def test_every_dtype_is_right_with_float64_enabled_and_strict_promotion():
    modes = {
        "JAX_ENABLE_X64": "1",
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
        "JAX_NUMPY_RANK_PROMOTION": "raise",
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.x64_run"],
        cwd=ROOT,
        env={**os.environ, **modes},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{6 * len(KINDS)} cases with Optax {optax.__version__}\n"


def two_steps(optimizer, *, jit):
    """Updates twice, with a gradient that has an exact zero and then with none but zeros."""
    params, (g,) = random_problem(steps=1)
    update = jax.jit(optimizer.update) if jit else optimizer.update
    state = optimizer.init(params)
    for gradients in (g, jax.tree.map(jnp.zeros_like, g)):
        updates, state = update(gradients, state, params)
    return updates


@pytest.fixture
def clear_caches():
    """What was compiled without a mode is not compiled again for it."""
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.mark.slow
@every_kind
def test_no_nan_is_found_in_what_is_finite(name, clear_caches):
    with jax.debug_nans(True):
        two_steps(ROWS[name].build(), jit=True)
        with jax.disable_jit():
            two_steps(ROWS[name].build(), jit=False)


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("lpsgd gradual", "lpsgdm sign")])
def test_no_infinity_is_found_where_p_is_finite(name, clear_caches):
    with jax.debug_infs(True):
        two_steps(ROWS[name].build(), jit=True)


@every_kind
def test_no_check_of_floats_raises_an_alarm(name):
    optimizer = ROWS[name].build()
    checked = checkify.checkify(lambda: two_steps(optimizer, jit=False), errors=checkify.float_checks)
    error, _ = jax.jit(checked)()
    error.throw()


@pytest.mark.slow
@every_kind
def test_no_tracer_leaks(name, clear_caches):
    with jax.checking_leaks():
        two_steps(ROWS[name].build(), jit=True)


@every_kind
def test_a_compiled_update_transfers_nothing(name):
    params, (g,) = random_problem(steps=1)
    optimizer = ROWS[name].build()
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    with jax.transfer_guard("disallow"):
        jax.block_until_ready(update(g, state, params))


@pytest.mark.parametrize("name", ["lpsgdm cosine", "lpsgdm rms", "steepest cosine"])
def test_a_step_from_python_compiles_nothing_after_the_first(name):
    row = ROWS[name]
    params = {f"w{size}": jnp.ones(size + 1) for size in range(5)}
    optimizer = row.build()
    _, state = optimizer.update(params, optimizer.init(params), params)
    with compilations() as count:
        optimizer.update(params, state, params)
    assert count == []


@contextlib.contextmanager
def compilations():
    """Gives a list that gets an entry for everything that is compiled."""
    found = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.clear_event_listeners()


def test_the_listener_counts_compilations():
    with compilations() as count:
        jax.jit(lambda x: x + np.float32(3.25))(jnp.ones(7))
    assert count
