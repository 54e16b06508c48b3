"""Layers and a small ResNet in NumPy, written from their definitions in PyTorch, in float64."""

import numpy as np

EPSILON = 1e-5  # of every BatchNorm.


def conv(x, kernel, stride):
    """Correlates [n, h, w, in] with [k, k, in, out], after padding that keeps odd k centred."""
    size = kernel.shape[0]
    pad = (size - 1) // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    return np.einsum("nhwcij,ijco->nhwo", windows[:, ::stride, ::stride], kernel)


def norm(x, params, statistics):
    """Normalises each channel with running statistics, as in evaluation."""
    scaled = (x - statistics["mean"]) / np.sqrt(statistics["var"] + EPSILON)
    return scaled * params["scale"] + params["bias"]


def resnet(images, params, statistics, stride=1):
    """Returns the logits, in evaluation, of a network with one block of two convolutions in each stage."""
    x = np.maximum(
        norm(conv(images, params["stem"]["kernel"], stride), params["norm"], statistics["norm"]), 0
    )
    for index in range(len(params["blocks"])):
        stride_of_block = 1 if index == 0 else 2
        block, seen = params["blocks"][index], statistics["blocks"][index]
        y = x
        for layer, of_layer in enumerate((stride_of_block, 1)):
            y = conv(y, block["convolutions"][layer]["kernel"], of_layer)
            y = norm(y, block["norms"][layer], seen["norms"][layer])
            y = np.maximum(y, 0) if layer == 0 else y
        if stride_of_block > 1:
            shortcut, of_shortcut = block["shortcut"]["layers"], seen["shortcut"]["layers"]
            x = norm(conv(x, shortcut[0]["kernel"], stride_of_block), shortcut[1], of_shortcut[1])
        x = np.maximum(x + y, 0)
    return x.mean(axis=(1, 2)) @ params["head"]["kernel"] + params["head"]["bias"]


def nll(logits, labels):
    """Returns the negative log likelihood of each row's label."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1))
    return log_sum - shifted[np.arange(len(labels)), labels]


def llama(tokens, params, heads):
    """Returns the logits of a Llama at each place, [n, length, vocabulary]."""
    x = params["embedding"]["embedding"][tokens]
    for block in params["blocks"].values():
        x = x + _attention(_rms_norm(x, block["attention_norm"]), block["attention"], heads)
        inner = _rms_norm(x, block["mlp_norm"])
        gate, up = (inner @ block["mlp"][name]["kernel"] for name in ("gate", "up"))
        x = x + (gate / (1 + np.exp(-gate)) * up) @ block["mlp"]["down"]["kernel"]
    return _rms_norm(x, params["norm"]) @ params["head"]["kernel"]


def _rms_norm(x, params):
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6) * params["scale"]


def _attention(x, params, heads):
    n, length, width = x.shape
    query, key, value = (
        (x @ params[name]["kernel"]).reshape(n, length, heads, -1) for name in ("query", "key", "value")
    )
    mixed = np.zeros_like(value)
    for place in range(length):
        # A complex number for each pair of features, turned by the distance of the two tokens.
        back = place - np.arange(place + 1)
        turns = np.exp(1j * np.multiply.outer(back, _frequencies(width // heads)))
        products = _pairs(query[:, [place]]) * np.conj(_pairs(key[:, : place + 1])) * turns[None, :, None]
        scores = np.real(products).sum(-1) / np.sqrt(width // heads)
        weights = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        mixed[:, place] = (weights[..., None] * value[:, : place + 1]).sum(1)
    return mixed.reshape(n, length, width) @ params["out"]["kernel"]


def _frequencies(features):
    return 10_000.0 ** (-2 * np.arange(features // 2) / features)


def _pairs(x):
    first, second = np.split(x, 2, axis=-1)
    return first + 1j * second
