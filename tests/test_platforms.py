"""What TPUs and GPUs compute otherwise than CPUs, by the CPU with its own logarithms and exponentials."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lpoptax
from tests import reference

SCALES = [1e-36, 1e-21, 1.0, 1e37]


@pytest.fixture(params=["tpu", "cuda"], autouse=True)
def platform(request, monkeypatch):
    """Lets the CPU take the branches of another platform."""

    def branch(*args, default, **branches):
        return branches.get(request.param, default)(*args)

    jax.clear_caches()
    monkeypatch.setattr(jax.lax, "platform_dependent", branch)
    yield request.param
    jax.clear_caches()


@pytest.mark.parametrize("p", [1.5, 2.5, 3.0, 6.0, np.inf])
def test_powers_are_those_of_the_formula(p):
    x = np.geomspace(1.2e-38, 3e38, 2001).astype(np.float32)
    with np.errstate(over="ignore"):
        power = reference.power(x.astype(float), p, 0.0).astype(np.float32)
    expected = np.where(power < 1.2e-38, 0, power)
    np.testing.assert_allclose(lpoptax.lp_power(x, p, 0.0), expected, rtol=5e-6)


@pytest.mark.parametrize("p", [1.5, 3.0, 6.0])
def test_mirror_steps_are_those_of_the_formula(p):
    z = np.geomspace(1e-3, 1e2, 501).astype(np.float32)
    pull = (0.5 * z.astype(float) ** (p - 1)).astype(np.float32)
    dual = lpoptax.mirror_descent(1.0, p)
    moved, _ = dual.update(-jnp.asarray(pull), dual.init(z), jnp.asarray(z))
    expected = (z.astype(float) ** (p - 1) + pull.astype(float)) ** (1 / (p - 1)) - z
    np.testing.assert_allclose(moved, expected, rtol=3e-5)


@pytest.mark.parametrize("p", [1.5, 2.0, 3.0])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("traced", [False, True])
def test_steps_have_unit_rms_at_every_scale(p, scale, traced):
    g = scale * jnp.array([1.0, -2.0, 0.5])

    def step(g, p):
        optimizer = lpoptax.lpsgd(1.0, p, eps=0.0, normalization="rms")
        return optimizer.update(g, optimizer.init(g))[0]

    found = jax.jit(step)(g, p) if traced else step(g, p)
    power = reference.power(np.array([1.0, -2.0, 0.5]), p, 0.0)
    np.testing.assert_allclose(found, -power / np.sqrt(np.mean(power**2)), rtol=1e-5)


@pytest.mark.parametrize("p", [1.5, 3.0])
@pytest.mark.parametrize("scale", SCALES)
def test_derivatives_of_unit_rms_are_finite_at_every_scale(p, scale):
    def of_step(x):
        optimizer = lpoptax.lpsgd(1.0, p, normalization="rms")
        return optimizer.update(scale * x, optimizer.init(x))[0][0]

    assert np.isfinite(jax.grad(of_step)(jnp.array([1.0, -2.0, 0.5]))).all()


def test_many_squares_that_are_lost_one_by_one_count():
    g = np.concatenate([[1e-18], np.full(1000, 3e-20)]).astype(np.float32)
    optimizer = lpoptax.lpsgd(1.0, 2.0, normalization="rms")
    step = optimizer.update(jnp.asarray(g), optimizer.init(g))[0]
    exact = g.astype(float)
    np.testing.assert_allclose(step, -exact / np.sqrt(np.mean(exact**2)), rtol=1e-5)
