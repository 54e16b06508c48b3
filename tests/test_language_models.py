"""The language models against their definition in NumPy, and their sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks.models.llama import Llama, Size, rotate
from benchmarks.models.registry import build_model
from tests import reference_models

SMALL = Size(layers=2, width=16, heads=2, hidden=24)
TOKENS = np.random.default_rng(1).integers(0, 11, (3, 9)).astype(np.int32)


def abstract(name, vocabulary, dtype="float32"):
    return nnx.eval_shape(lambda: build_model(name, (64,), vocabulary, dtype=dtype))


@pytest.fixture(scope="module")
def model():
    """Returns a small model whose parameters are far from their initial values, so that all matter."""
    abstract = nnx.eval_shape(
        lambda: Llama(SMALL, shape=(9,), classes=11, dtype=jnp.float32, rngs=nnx.Rngs(0))
    )
    graphdef, params = nnx.split(abstract, nnx.Param)
    rng = np.random.default_rng(0)
    return nnx.merge(
        graphdef,
        jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0.1, 0.5, leaf.shape), jnp.float32), params),
    )


@pytest.fixture(scope="module")
def compute(model):
    return nnx.jit(lambda tokens: model(tokens))


def params_of(model):
    state = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state)


def test_a_llama_computes_what_its_definition_says(model, compute):
    expected = reference_models.llama(TOKENS, params_of(model), SMALL.heads)
    assert np.ptp(expected) > 3
    # Sums of at most 24 float32 products, in a few layers one after the other.
    np.testing.assert_allclose(compute(TOKENS), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("place", [0, 4, 8])
def test_no_token_changes_what_is_predicted_before_it(compute, place):
    changed = TOKENS.copy()
    changed[:, place] = (changed[:, place] + 1) % 11
    before, after = np.asarray(compute(TOKENS)), np.asarray(compute(changed))
    np.testing.assert_array_equal(before[:, :place], after[:, :place])
    # It changes all that is predicted from it on.
    assert (before[:, place:] != after[:, place:]).any(axis=-1).all()


def test_attention_sees_distances_only():
    rng = np.random.default_rng(0)
    # The same query and key at each of 300 places, of which bfloat16 could not tell the last apart.
    query, key = (np.broadcast_to(rng.normal(size=8), (1, 300, 1, 8)).astype(np.float32) for _ in range(2))
    scores = np.einsum("qd,kd->qk", rotate(jnp.asarray(query))[0, :, 0], rotate(jnp.asarray(key))[0, :, 0])
    for distance in (0, 1, 7, 250):
        diagonal = np.diagonal(scores, -distance)
        # Angles of up to 300, to the 3e-5 that float32 has there.
        np.testing.assert_allclose(diagonal, diagonal[0], atol=1e-3)
    assert np.ptp([scores[distance, 0] for distance in (0, 1, 7, 250)]) > 0.1


def llama_count(vocabulary, layers, width, hidden):
    # Embedding and head; four maps, three maps and two norms in each layer; the last norm.
    return 2 * vocabulary * width + layers * (4 * width**2 + 3 * width * hidden + 2 * width) + width


@pytest.mark.parametrize(
    ("name", "vocabulary", "count", "sizes"),
    [
        ("llama100m", 32_000, 99_989_120, (12, 640, 1708)),
        ("llama_small", 1024, 658_048, (2, 128, 344)),
    ],
)
def test_parameter_counts_are_those_that_are_told(name, vocabulary, count, sizes):
    params = jax.tree.leaves(nnx.state(abstract(name, vocabulary), nnx.Param))
    assert sum(leaf.size for leaf in params) == count == llama_count(vocabulary, *sizes)


def test_bfloat16_is_for_computing_only():
    graphdef, state = nnx.split(abstract("llama_small", 50, "bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype(jnp.float32)}
    jaxpr = jax.make_jaxpr(lambda state, tokens: nnx.merge(graphdef, state)(tokens))(state, TOKENS)
    assert {output.dtype for output in jaxpr.out_avals} == {jnp.dtype(jnp.bfloat16)}
    inputs = {
        variable.aval.dtype
        for eqn in jaxpr.eqns
        if eqn.primitive.name == "dot_general"
        for variable in eqn.invars
    }
    assert inputs == {jnp.dtype(jnp.bfloat16)}
