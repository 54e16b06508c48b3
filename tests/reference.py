"""The algorithms in NumPy float64, written from the formulas and from nothing else."""

import numpy as np


def rho(p):
    return 1.0 if np.isinf(p) else (p - 2) / (p - 1)


def power(x, p, eps=1e-8):
    """x / (|x| + eps)^rho, with 0 for 0."""
    x = np.asarray(x, np.float64)
    denominator = np.where(x == 0, 1, np.abs(x) + eps) ** rho(p)
    return x / denominator


def schatten_power(x, p, eps=0.0):
    """The power of the singular values of a matrix, or of each of a stack."""
    u, singular, v = np.linalg.svd(np.asarray(x, np.complex128 if np.iscomplexobj(x) else np.float64), False)
    return (u * power(singular, p, eps)[..., None, :]) @ v


def direction(x, p, eps=1e-8, normalization=None):
    """The step from one space: the power, at unit root mean square, or with its dual norm, or as it is."""
    if normalization and p < 2:
        eps = 0.0  # nothing is divided by
    u = power(x, p, eps)
    if normalization == "rms":
        return u / np.sqrt(np.mean(u**2)) if u.any() else u
    if normalization == "dual_norm":
        q = 1.0 if np.isinf(p) else p / (p - 1)
        return np.sum(np.abs(x) ** q) ** (rho(p) / q) * u
    return u


def lpsgdm(params, gradients, learning_rate, p, momentum, eps, weight_decay, normalization=None):
    """Yields the parameters after each step; p is a function of the step. momentum = 0: LPSGD."""
    m = np.zeros_like(params)
    for step, g in enumerate(gradients):
        m = momentum * m + (1 - momentum) * g
        u = direction(m, p(step), eps, normalization)
        params = (1 - learning_rate * weight_decay) * params - learning_rate * u
        yield params


def mirror(z, g, alpha, p):
    """Mirror descent for |.|_p^p / p."""
    w = np.abs(z) ** (p - 1) * np.sign(z) - alpha * g
    return np.sign(w) * np.abs(w) ** (1 / (p - 1))


def stacey(
    params,
    gradients,
    learning_rate,
    p,
    mirror_p,
    alpha,
    tau,
    b1,
    b2,
    eps,
    weight_decay,
):
    """Yields the parameters after each step; p and mirror_p are functions of the step."""
    m, z = np.zeros_like(params), params
    for step, g in enumerate(gradients):
        c = b1 * m + (1 - b1) * g
        y = params - learning_rate * power(c, p(step), eps)
        z = mirror(z, c, alpha, mirror_p(step))
        params = tau * z + (1 - tau) * y - learning_rate * weight_decay * params
        m = b2 * m + (1 - b2) * g
        yield params
