"""Losses against plain dense versions: values, gradients, masks, shards, memory."""

import dataclasses
import functools
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import compiled_well
from numpy.testing import assert_allclose, assert_array_equal

from jaxrec.devices.item_table import table_split_over
from jaxrec.devices.rows import rows_split_over
from jaxrec.losses import (
    LOSSES,
    BinaryLoss,
    GeneralizedBinaryLoss,
    PairwiseLoss,
    SampledSoftmaxLoss,
    SoftmaxLoss,
)
from jaxrec.losses.negatives import draw_negatives

NUM_TOKENS, NUM_ITEMS, NUM_ROWS, WIDTH = 100, 300, 384, 16


@pytest.fixture(scope="module")
def problem():
    """Query, table, targets, weights; two tokens in five weigh 0 and have target 0."""
    keys = jax.random.split(jax.random.key(0), 5)
    query = jax.random.normal(keys[0], (NUM_TOKENS, WIDTH))
    table = jax.random.normal(keys[1], (NUM_ROWS, WIDTH))
    targets = jax.random.randint(keys[2], (NUM_TOKENS,), 1, NUM_ITEMS + 1)
    used = jax.random.uniform(keys[3], (NUM_TOKENS,)) < 0.6
    weights = jnp.where(used, jax.random.uniform(keys[4], (NUM_TOKENS,)), 0.0)
    return query, table, jnp.where(used, targets, 0), weights


def dense_softmax(query, table, targets, weights):
    logits = jnp.einsum("nq,vq->nv", query, table, precision="highest")
    ids = jnp.arange(NUM_ROWS)
    logits = jnp.where((ids >= 1) & (ids <= NUM_ITEMS), logits, -jnp.inf)
    targets = jnp.where(targets == 0, 1, targets)  # padding, of weight 0
    log_probabilities = jax.nn.log_softmax(logits)[jnp.arange(len(targets)), targets]
    return -jnp.sum(log_probabilities * weights)


dense_value_and_gradients = jax.jit(jax.value_and_grad(dense_softmax, (0, 1, 3)))


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradients(loss, query, table, targets, weights, key=None):
    """Compiled once for every loss; gradients for query, table and weights."""

    def total(query, table, weights):
        return loss(query, table, targets, weights, key, num_items=NUM_ITEMS)[0]

    return jax.value_and_grad(total, (0, 1, 2))(query, table, weights)


PLANS = {
    "chosen": {},
    "blocks": {"block": 16},
    "ragged blocks": {"block": 33},
    "chunks": {"block": 16, "chunk": 96},
    "ragged chunks": {"block": 33, "chunk": 100},
    "the whole at once": {"block": 1000, "chunk": 1000},
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_softmax_equals_dense(problem, plan):
    query, table, targets, weights = problem
    expected, expected_gradients = dense_value_and_gradients(query, table, targets, weights)
    value, gradients = value_and_gradients(SoftmaxLoss(**plan), *problem)
    assert_allclose(value, expected, rtol=1e-5)
    assert_allclose(gradients[0], expected_gradients[0], rtol=1e-5, atol=1e-5)
    assert_allclose(gradients[1], expected_gradients[1], rtol=1e-5, atol=1e-5)
    assert_allclose(gradients[2], jnp.where(weights > 0, expected_gradients[2], 0.0), rtol=1e-5, atol=1e-5)


def test_accelerators_know_the_number_of_blocks(problem, monkeypatch):
    """The same loss and gradients from loops of constant length: others would wait for the host."""
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    expected = dense_value_and_gradients(*problem)
    for loss in (
        SoftmaxLoss(block=34),
        SoftmaxLoss(block=34, chunk=100),
    ):  # sizes that no other test has traced
        value, gradients = value_and_gradients(loss, *problem)
        assert_allclose(value, expected[0], rtol=1e-5)
        assert_allclose(gradients[1], expected[1][1], rtol=1e-5, atol=1e-5)
        program = str(jax.make_jaxpr(functools.partial(value_and_gradients, loss))(*problem))
        assert "scan[" in program
        assert "while[" not in program


def test_softmax_without_a_gradient(problem):
    expected = dense_softmax(*problem)
    for plan in ({"block": 33}, {"block": 33, "chunk": 100}):
        total, weight = SoftmaxLoss(**plan)(*problem, None, num_items=NUM_ITEMS)
        assert_allclose(total, expected, rtol=1e-5)
        assert_allclose(weight, problem[3].sum(), rtol=1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        SoftmaxLoss(block=16),
        SoftmaxLoss(block=16, chunk=20),
        SoftmaxLoss(block=16, dtype="bfloat16"),
        SampledSoftmaxLoss(40, in_batch=True, block=5),
        BinaryLoss(3, block=16),
    ],
    ids=["tokens", "items", "bfloat16", "sampled", "binary"],
)
def test_a_table_split_over_devices_changes_nothing(problem, loss):
    """Eight parts of tokens and of rows, the last without an item."""
    query, table, targets, weights = (array if array is problem[1] else array[:96] for array in problem)
    key = jax.random.key(3)
    expected, expected_gradients = value_and_gradients(loss, query, table, targets, weights, key)

    def total(query, rows, targets, weights):
        with table_split_over("model"), rows_split_over("model"):
            return loss(query, rows, targets, weights, key, num_items=NUM_ITEMS)[0]

    parts = [array.reshape(8, -1, *array.shape[1:]) for array in (query, table, targets, weights)]
    function = jax.vmap(jax.value_and_grad(total, (0, 1, 3)), axis_name="model")
    values, gradients = jax.jit(function)(*parts)
    tolerance = 0.02 if getattr(loss, "dtype", "float32") == "bfloat16" else 1e-5
    assert_allclose(values.sum(), expected, rtol=tolerance)
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        assert_allclose(gradient.reshape(wanted.shape), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("plan", [{"block": 16}, {"block": 16, "chunk": 96}], ids=["tokens", "items"])
def test_softmax_survives_large_logits_and_bfloat16(problem, plan):
    query, table, targets, weights = problem
    large = (query * 100, table, targets, weights)
    expected = dense_value_and_gradients(*large)[0]
    value, gradients = value_and_gradients(SoftmaxLoss(**plan), *large)
    assert_allclose(value, expected, rtol=1e-5)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    exact = value_and_gradients(SoftmaxLoss(**plan), *problem)
    rounded = value_and_gradients(SoftmaxLoss(**plan, dtype="bfloat16"), *problem)
    assert_allclose(rounded[0], exact[0], rtol=1e-2)
    assert rounded[1][1].dtype == jnp.float32
    assert_allclose(rounded[1][1], exact[1][1], atol=0.03)


@pytest.mark.parametrize(
    "loss",
    [SoftmaxLoss(block=16), SoftmaxLoss(block=16, chunk=96), SampledSoftmaxLoss(40, block=33), BinaryLoss(5)],
    ids=lambda loss: type(loss).__name__,
)
def test_tokens_of_weight_zero_have_no_part(problem, loss):
    query, table, targets, weights = problem
    key = jax.random.key(7)
    value, gradients = value_and_gradients(loss, *problem, key)
    spoilt = jnp.where(weights[:, None] > 0, query, 100.0)
    other_value, other_gradients = value_and_gradients(loss, spoilt, table, targets, weights, key)
    assert value == other_value
    assert_array_equal(gradients[1], other_gradients[1])
    assert_array_equal(gradients[0][weights == 0], 0.0)
    assert np.abs(gradients[0][weights > 0]).min(axis=-1).max() > 0
    value, gradients = value_and_gradients(loss, query, table, targets, jnp.zeros_like(weights), key)
    assert value == 0.0
    assert not np.any(gradients[0])
    assert not np.any(gradients[1])


@pytest.mark.parametrize("name", LOSSES)
def test_leading_axes_and_masked_rows(problem, name):
    query, table, targets, weights = problem
    key = jax.random.key(1)
    loss = jax.jit(functools.partial(LOSSES[name](), num_items=NUM_ITEMS))
    flat = loss(*problem, key)
    rows = (4, NUM_TOKENS // 4)
    shaped = loss(query.reshape(*rows, WIDTH), table, targets.reshape(rows), weights.reshape(rows), key)
    assert_allclose(shaped, flat, rtol=1e-6)
    assert_allclose(flat[1], weights.sum(), rtol=1e-6)
    spoilt = table.at[0].set(50.0).at[NUM_ITEMS + 1 :].set(50.0)
    assert_allclose(loss(query, spoilt, targets, weights, key), flat, rtol=1e-6)
    with pytest.raises(ValueError, match="must agree"):
        loss(query, table, targets[:-1], weights, key)


def scores_of(problem, ids):
    return np.einsum("nq,nkq->nk", problem[0], np.asarray(problem[1])[np.asarray(ids)])


def softplus(x):
    return np.logaddexp(0.0, x)


def expected_binary(positive, negative):
    return softplus(-positive) + softplus(negative).sum(-1)


def expected_generalized(positive, negative):
    rate = 5 / (NUM_ITEMS - 1)
    power = rate * (0.6 * (1 - 1 / rate) + 1 / rate)
    return (power * softplus(-positive) + softplus(negative).sum(-1)) / 6


def expected_pairwise(positive, negative):
    return softplus(negative - positive[:, None]).mean(-1)


NEGATIVE_SAMPLING = {
    "binary": (BinaryLoss(5), expected_binary),
    "generalized": (GeneralizedBinaryLoss(5, t=0.6), expected_generalized),
    "pairwise": (PairwiseLoss(5), expected_pairwise),
}


@pytest.mark.parametrize(("loss", "formula"), NEGATIVE_SAMPLING.values(), ids=NEGATIVE_SAMPLING.keys())
def test_negative_sampling_formulas_and_gradients(problem, loss, formula):
    query, table, targets, weights = problem
    key = jax.random.key(3)
    negatives = draw_negatives(key, targets, 5, NUM_ITEMS)
    positive = scores_of(problem, targets[:, None])[:, 0]
    expected = np.sum(weights * formula(positive, scores_of(problem, negatives)))
    value, gradients = value_and_gradients(loss, *problem, key)
    assert_allclose(value, expected, rtol=1e-5)

    def plain(query, table, weights):
        scores = jnp.einsum("nq,nkq->nk", query, table[negatives])
        own = jnp.einsum("nq,nq->n", query, table[targets])
        return jnp.sum(weights * loss.from_scores(own, scores, NUM_ITEMS))

    used = (weights > 0)[:, None]
    wanted = jax.grad(plain, (0, 1))(query, table, weights)
    assert_allclose(gradients[0], jnp.where(used, wanted[0], 0.0), atol=1e-5)
    assert_allclose(gradients[1], wanted[1], atol=1e-5)
    blocked = value_and_gradients(dataclasses.replace(loss, block=7), *problem, key)
    assert_allclose(blocked[0], value, rtol=1e-5)
    assert_allclose(blocked[1][1], gradients[1], atol=1e-5)


def test_generalized_binary_at_zero_is_binary(problem):
    key = jax.random.key(2)
    generalized = GeneralizedBinaryLoss(4, t=0.0)(*problem, key, num_items=NUM_ITEMS)[0]
    assert_allclose(generalized * 5, BinaryLoss(4)(*problem, key, num_items=NUM_ITEMS)[0], rtol=1e-6)


def test_negatives_are_uniform_over_the_other_items():
    targets = jnp.array([1, 3, 5, 0])
    drawn = np.asarray(draw_negatives(jax.random.key(0), targets, 8000, 5))
    for target, row in zip([1, 3, 5], drawn, strict=False):
        counts = np.bincount(row, minlength=6)
        assert counts[0] == counts[target] == 0
        others = np.delete(counts, [0, target])
        assert_allclose(others, 2000, rtol=0.1)
    assert drawn.min() >= 1
    assert drawn.max() <= 5
    with pytest.raises(ValueError, match="at least 2 items"):
        draw_negatives(jax.random.key(0), targets, 1, 1)


@pytest.mark.parametrize("in_batch", [False, True])
def test_sampled_sum_of_exponentials_is_unbiased(problem, in_batch):
    """The corrected candidates estimate Σ exp(score) over the catalogue; uncorrected ones do not."""
    query, table, targets, weights = problem
    scores = 0.3 * np.asarray(table @ query[0])
    ids = np.arange(NUM_ROWS)
    real = (ids >= 1) & (ids <= NUM_ITEMS)
    loss = SampledSoftmaxLoss(64, in_batch=in_batch)

    def estimate(key):
        ids, shift = loss.candidates(targets, weights, key, NUM_ITEMS)
        return jnp.sum(jnp.exp(jnp.asarray(scores)[ids] + shift))

    estimates = jax.vmap(estimate)(jax.random.split(jax.random.key(0), 2000))
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - np.exp(scores[real]).sum()) < 4 * error


@pytest.mark.parametrize(
    "loss",
    [
        SampledSoftmaxLoss(40, block=33),
        SampledSoftmaxLoss(40, logq=False),
        SampledSoftmaxLoss(40, in_batch=True, block=16),
        SampledSoftmaxLoss(0, in_batch=True, logq=False),
    ],
    ids=["logq", "plain", "in batch", "only in batch"],
)
def test_sampled_softmax_equals_plain_numpy(problem, loss):
    query, table, targets, weights = map(np.asarray, problem)
    key = jax.random.key(5)
    ids, shift = map(np.asarray, loss.candidates(*problem[2:], key, NUM_ITEMS))
    expected = 0.0
    for vector, target, weight in zip(query, targets, weights, strict=True):
        if weight:
            own = table[target] @ vector
            others = [
                table[item] @ vector + bias for item, bias in zip(ids, shift, strict=True) if item != target
            ]
            expected += weight * (np.logaddexp.reduce([own, *others]) - own)
    value, gradients = value_and_gradients(loss, *problem, key)
    assert_allclose(value, expected, rtol=1e-5)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    if not loss.in_batch:
        assert_allclose(shift, -np.log(40 / NUM_ITEMS) if loss.logq else 0.0, rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SoftmaxLoss(block=0),
        lambda: SoftmaxLoss(chunk=-1),
        lambda: SampledSoftmaxLoss(0),
        lambda: BinaryLoss(0),
        lambda: GeneralizedBinaryLoss(t=1.5),
    ],
)
def test_bad_settings_are_refused(make):
    with pytest.raises(ValueError, match="must"):
        make()


MEMORY_PROGRAM = """
import sys
import jax, jax.numpy as jnp
from jaxrec.losses import SoftmaxLoss

rows, width, num_tokens = (int(argument) for argument in sys.argv[1:])
query = jnp.ones((num_tokens, width)) * 0.01
table = jax.jit(lambda: jnp.sin(jax.lax.iota(jnp.float32, rows * width)).reshape(rows, width))()
targets = jnp.arange(1, num_tokens + 1)

def total(query, table):
    return SoftmaxLoss()(query, table, targets, jnp.ones(num_tokens), None, num_items=rows - 1)[0]

compiled = jax.jit(jax.value_and_grad(total, (0, 1))).lower(query, table).compile()
value, gradients = jax.block_until_ready(compiled(query, table))
assert jnp.isfinite(value)
# Not getrusage: its peak is at least that of the process that started this one.
status = open("/proc/self/status").read().split()
peak = int(status[status.index("VmHWM:") + 1]) * 1024
print(compiled.memory_analysis().temp_size_in_bytes, peak)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
def test_memory_at_a_million_items():
    """Beside the table and its gradient a step needs under 1 GB, Python and XLA included."""
    rows, width, num_tokens = 1_000_064, 128, 256
    program = [sys.executable, "-c", MEMORY_PROGRAM, str(rows), str(width), str(num_tokens)]
    result = subprocess.run(program, env=compiled_well(), capture_output=True, text=True, check=True)
    temporary, peak = (int(word) for word in result.stdout.split())
    assert temporary < 2**28
    assert peak - 2 * rows * width * 4 < 1e9


def test_memory_does_not_depend_on_tokens_times_items():
    def temporary(num_tokens):
        arrays = [
            jax.ShapeDtypeStruct((num_tokens, 64), jnp.float32),
            jax.ShapeDtypeStruct((1_000_064, 64), jnp.float32),
            jax.ShapeDtypeStruct((num_tokens,), jnp.int32),
        ]

        def total(query, table, targets):
            weights = jnp.ones(num_tokens)
            return SoftmaxLoss()(query, table, targets, weights, None, num_items=1_000_000)[0]

        compiled = jax.jit(jax.grad(total, (0, 1))).lower(*arrays).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    few, many = temporary(1600), temporary(6400)
    assert many < 2**28
    assert many - few < 40 * 4800 * 64  # a few arrays as large as the query
