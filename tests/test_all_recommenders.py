"""Every recommender through one file: what training, evaluation and export rely on."""

import dataclasses
import functools

import chex
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import drawn_params

from jaxrec.batch import SequenceBatch, right_align
from jaxrec.export import exported_recommend
from jaxrec.lists import recommend
from jaxrec.lists.bulk import trained_items
from jaxrec.losses import SampledSoftmaxLoss
from jaxrec.models.diffurec import DiffuRecRecommender
from jaxrec.models.diffurecsys import DiffuRecSysRecommender
from jaxrec.models.encoder import EncoderRecommender, Penalty
from jaxrec.models.popularity import PopularityRecommender
from jaxrec.models.stosa import DistanceLoss, StosaRecommender
from jaxrec.nn.attention import DotProduct
from jaxrec.nn.diffusion_attention import DiffusionAttention
from jaxrec.nn.refinement import Refined
from jaxrec.nn.stochastic import WassersteinScores
from jaxrec.nn.vae_attention import VaeAttention
from jaxrec.presets import preset
from jaxrec.recommender import Recommender, table_rows
from jaxrec.train.state import TrainState, create_state
from jaxrec.train.step import make_train_step

NUM_ITEMS, MAX_LENGTH = 60, 12
SMALL = {"num_items": NUM_ITEMS, "max_length": MAX_LENGTH, "width": 16, "num_layers": 2, "num_heads": 2}
TINY = {**SMALL, "num_layers": 1}
DIFFUSION = {
    **TINY,
    "num_inference_steps": 4,
    "uncertainty": 0.5,  # the default 0.001 would hide a wrong draw
}

RECOMMENDERS = {
    "popularity": PopularityRecommender(num_items=NUM_ITEMS, max_length=MAX_LENGTH),
    "sasrec": EncoderRecommender(**SMALL),
    "sasrec-post-norm": EncoderRecommender(**SMALL, norm_first=False, activation="gelu"),
    "sasrec-sampled": EncoderRecommender(**TINY, loss_function=SampledSoftmaxLoss(num_negatives=16)),
    "sasrec-remat": EncoderRecommender(**TINY, rematerialise=True),
    "sasrec-fused": EncoderRecommender(**TINY, attention=DotProduct(fused=True)),
    "awrsr": EncoderRecommender(**TINY, attention=Refined()),
    "stosa": StosaRecommender(**TINY),
    "stosa-bpr": StosaRecommender(**TINY, loss_function=DistanceLoss()),
    "stosa-awrsr": StosaRecommender(
        **TINY, attention=Refined(base=WassersteinScores(), mechanism="stochastic")
    ),
    "vgenatt": EncoderRecommender(**TINY, attention=VaeAttention(), penalties=(Penalty("kl", 1e-3),)),
    "vgenatt-global": EncoderRecommender(
        **TINY, attention=VaeAttention(form="global"), penalties=(Penalty("kl", 1e-3),)
    ),
    "vgenatt-sampled": EncoderRecommender(
        **TINY, attention=VaeAttention(sample_at_inference=True), penalties=(Penalty("kl", 1e-3),)
    ),
    "dgenatt": EncoderRecommender(**TINY, attention=DiffusionAttention()),
    "diffurec": DiffuRecRecommender(**DIFFUSION),
    "diffurecsys": DiffuRecSysRecommender(**DIFFUSION),
    "diffurecsys-token-queries": DiffuRecSysRecommender(**DIFFUSION, token_queries=True),
    "diffurecsys-cached": DiffuRecSysRecommender(**DIFFUSION, form="history-cached"),
}
EAGER = ("sasrec", "vgenatt", "diffurec")
"""Recommenders that are also run without ``jit``, which compiles hundreds of programs of one operation each."""
TRAINABLE = {name: model for name, model in RECOMMENDERS.items() if name != "popularity"}

over_all = pytest.mark.parametrize("recommender", RECOMMENDERS.values(), ids=RECOMMENDERS)
over_trainable = pytest.mark.parametrize("recommender", TRAINABLE.values(), ids=TRAINABLE)


@functools.partial(jax.jit, static_argnums=0)
def query_of(recommender, params, items, key):
    return recommender.query(params, items, key)


@functools.partial(jax.jit, static_argnums=0)
def loss_and_gradient(recommender, params, batch, step):
    """One program for all that is asked of a loss."""

    def total(params):
        output = recommender.loss(params, batch, jax.random.key(1), step=step)
        return output.total, output

    (_, output), gradient = jax.value_and_grad(total, has_aux=True)(params)
    return output, gradient


def histories(count: int = 6, seed: int = 0, longest: int = 8) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    return [
        generator.integers(1, NUM_ITEMS + 1, generator.integers(1, longest + 1)).tolist()
        for _ in range(count)
    ]


def training_batch(recommender: Recommender, length: int = 8, seed: int = 0) -> SequenceBatch:
    whole = right_align(histories(seed=seed, longest=length + 1), length + 1)
    items, targets = jnp.asarray(whole[:, :-1]), jnp.asarray(whole[:, 1:])
    weights = ((items > 0) & (targets > 0)).astype(jnp.float32)
    if recommender.target_positions == "last":
        weights = weights.at[:, :-1].set(0.0)
    return SequenceBatch(items, targets, weights)


@pytest.fixture(scope="module")
def params_of():
    cache = {}

    def get(recommender):
        if recommender not in cache:
            cache[recommender] = jax.jit(recommender.init)(jax.random.key(0))
        return cache[recommender]

    return get


@over_all
def test_protocol_and_hash(recommender):
    assert isinstance(recommender, Recommender)
    assert hash(recommender) == hash(dataclasses.replace(recommender))
    assert recommender == dataclasses.replace(recommender)


@over_all
def test_shapes_and_types(recommender, params_of):
    params = params_of(recommender)
    query = query_of(
        recommender, params, jnp.asarray(right_align(histories(), MAX_LENGTH)), jax.random.key(1)
    )
    items = recommender.items(params)
    chex.assert_shape(query, (6, items.shape[1]))
    chex.assert_shape(items, (table_rows(NUM_ITEMS), None))
    chex.assert_type([query, items], jnp.float32)
    chex.assert_tree_all_finite((query, items))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))


@over_all
def test_a_row_of_padding_gives_finite_numbers(recommender, params_of):
    nothing = jnp.zeros((6, MAX_LENGTH), jnp.int32)
    query = query_of(recommender, params_of(recommender), nothing, jax.random.key(1))
    chex.assert_tree_all_finite(query)


@over_all
def test_padding_and_bucket_change_nothing(recommender, params_of):
    params, key = params_of(recommender), jax.random.key(1)
    short = query_of(recommender, params, jnp.asarray(right_align(histories(), 8)), key)
    long = query_of(recommender, params, jnp.asarray(right_align(histories(), MAX_LENGTH)), key)
    np.testing.assert_allclose(short, long, rtol=2e-5, atol=2e-6)


@over_all
def test_a_user_alone_gets_the_query_of_a_batch(recommender, params_of):
    params, key = params_of(recommender), jax.random.key(1)
    items = jnp.asarray(right_align(histories(), 8))
    together = query_of(recommender, params, items, key)
    order = jnp.asarray([3, 0, 5, 2, 2, 1])
    np.testing.assert_allclose(
        query_of(recommender, params, items[order], key), together[order], rtol=2e-5, atol=2e-6
    )
    np.testing.assert_allclose(
        query_of(recommender, params, items[2:3], key), together[2:3], rtol=2e-5, atol=2e-6
    )


@over_all
def test_query_is_deterministic_and_jits(recommender, params_of):
    params, items = params_of(recommender), jnp.asarray(right_align(histories(), 8))
    first = query_of(recommender, params, items, jax.random.key(1))
    np.testing.assert_array_equal(first, query_of(recommender, params, items, jax.random.key(1)))
    other = query_of(recommender, params, items, jax.random.key(2))
    assert recommender.stochastic == bool(np.abs(first - other).max() > 1e-3)
    assert recommender.stochastic or np.array_equal(first, other)
    if recommender in [RECOMMENDERS[name] for name in EAGER]:
        not_jitted = recommender.query(params, items, jax.random.key(1))
        np.testing.assert_allclose(first, not_jitted, rtol=1e-4, atol=1e-5)


@over_all
def test_loss_is_a_weighted_sum(recommender, params_of):
    params, batch = params_of(recommender), training_batch(recommender)
    output, _ = loss_and_gradient(recommender, params, batch, 0)
    assert float(output.weight) == float(batch.weights.sum())
    chex.assert_tree_all_finite((output.total, output.metrics))
    assert "ranking_loss" in output.metrics
    nothing = dataclasses.replace(batch, weights=jnp.zeros_like(batch.weights))
    output, _ = loss_and_gradient(recommender, params, nothing, 0)
    assert (float(output.total), float(output.weight)) == (0.0, 0.0)


@over_trainable
def test_gradient_reaches_every_leaf(recommender, params_of):
    params, batch = params_of(recommender), training_batch(recommender)
    _, gradient = loss_and_gradient(recommender, params, batch, 1000)
    chex.assert_tree_all_finite(gradient)
    silent = {
        jax.tree_util.keystr(path) for path, leaf in jax.tree.leaves_with_path(gradient) if not np.any(leaf)
    }
    if not isinstance(recommender, StosaRecommender):
        # Dot products do not see a shift of all keys' logits, so the key's bias has no gradient but rounding.
        silent = {name for name in silent if not name.endswith("['key']['bias']")}
    assert not silent


@over_trainable
def test_positions_do_not_see_what_follows(recommender, params_of):
    """The loss at the first positions does not change with the items after them; draws follow row and place.

    A recommender that sees the whole window trains on its last position only, whatever the weights of the others.
    """
    batch = training_batch(recommender)
    if recommender.target_positions == "last":
        whole = dataclasses.replace(
            batch, targets=batch.targets.at[:, :-1].add(1), weights=batch.weights.at[:, :-1].set(1.0)
        )
        trained, asked = (
            loss_and_gradient(recommender, params_of(recommender), each, 0)[0] for each in (batch, whole)
        )
        chex.assert_trees_all_equal(trained, asked)
        return
    items = np.random.default_rng(2).integers(1, 50, batch.items.shape, np.int32)
    changed = items + 7 * (np.arange(8) > 3)
    first = np.zeros(items.shape, np.float32)
    first[:, :4] = 1.0
    totals = [
        loss_and_gradient(
            recommender,
            params_of(recommender),
            SequenceBatch(jnp.asarray(row), jnp.full_like(batch.targets, 9), jnp.asarray(weights)),
            0,
        )[0].metrics["ranking_loss"]
        for row, weights in ((items, first), (changed, first), (items, 1 - first), (changed, 1 - first))
    ]
    np.testing.assert_allclose(totals[0], totals[1], rtol=1e-6)
    assert abs(totals[2] / totals[3] - 1) > 1e-4  # those after them do


@pytest.mark.parametrize(
    "recommender",
    [
        EncoderRecommender(**SMALL),
        EncoderRecommender(**SMALL, attention=preset("awrsr").model.attention),
        EncoderRecommender(**SMALL, attention=VaeAttention(content_width=4)),
        EncoderRecommender(**SMALL, attention=DiffusionAttention()),
        StosaRecommender(**SMALL),
        StosaRecommender(
            **SMALL, attention=Refined(base=WassersteinScores(), mechanism="stochastic", initial_scale=28.0)
        ),
    ],
    ids=["sasrec", "awrsr", "vgenatt-content", "dgenatt", "stosa", "stosa-stochastic"],
)
def test_no_gradient_from_a_state_to_later_items(recommender):
    """Through all layers: the derivative of each position's state by each item's rows of the tables."""
    params, items = jax.tree.map(jnp.asarray, drawn_params(recommender)), jnp.arange(1, 7)[None]
    tables = {name: leaf for name, leaf in params.items() if name.endswith("embedding")}
    rngs = {"diffusion": jax.random.key(1)}

    def states(tables):
        found, _ = recommender.module.apply({"params": params | tables}, items, train=False, rngs=rngs)
        return sum(jnp.sum(jnp.sin(5 * stream[0]), axis=-1) for stream in jax.tree.leaves(found))

    jacobian = jax.tree.leaves(jax.jit(jax.jacrev(states))(tables))
    by_item = sum(np.abs(leaf[:, 1:7]).max(-1) for leaf in map(np.asarray, jacobian))
    assert np.all(by_item[np.triu_indices(6, 1)] == 0)
    assert np.all(by_item[np.tril_indices(6)] > 0)


@over_trainable
def test_bfloat16_is_close_to_float32(recommender, params_of):
    params, items = params_of(recommender), jnp.asarray(right_align(histories(), 8))
    exact = query_of(recommender, params, items, jax.random.key(1))
    rough = query_of(dataclasses.replace(recommender, dtype="bfloat16"), params, items, jax.random.key(1))
    assert rough.dtype == jnp.float32
    cosine = jnp.sum(exact * rough, -1) / (jnp.linalg.norm(exact, axis=-1) * jnp.linalg.norm(rough, axis=-1))
    assert float(cosine.min()) > 0.995


@over_trainable
def test_training_lowers_the_loss(recommender, params_of):
    batch = training_batch(recommender)
    optimizer = optax.adam(1e-2)
    params = params_of(recommender)
    state = TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))
    step = jax.jit(make_train_step(recommender, optimizer))
    losses = []
    for _ in range(30):
        state, metrics = step(state, batch, jax.random.key(2))
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    assert int(state.step) == 30


@over_all
@pytest.mark.slow
def test_recommend_is_exported_for_every_platform(recommender, params_of):
    """The whole program with a symbolic batch, read back and run here."""
    params, platforms = params_of(recommender), ("cpu", "cuda", "tpu")
    counts = np.arange(NUM_ITEMS + 1) % 5  # every fifth item was never trained
    content = exported_recommend(recommender, params, counts, k=7, platforms=platforms).serialize()
    program = jax.export.deserialize(content)
    assert set(program.platforms) == set(platforms)
    items = right_align(histories(), MAX_LENGTH)
    found, scores = program.call(items, items, np.uint32(3))
    expected = recommend(
        recommender,
        params,
        items,
        k=7,
        key=jax.random.key(3, impl="threefry2x32"),
        exclude=items,
        allowed=trained_items(recommender, counts),
    )
    np.testing.assert_array_equal(found, expected.items)
    np.testing.assert_allclose(scores, expected.scores, rtol=1e-4, atol=1e-5)


@over_trainable
@pytest.mark.slow
def test_train_step_lowers_for_every_platform(recommender, monkeypatch):
    """With the sizes and the loops that accelerators get; the other tests run those of CPUs."""
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    optimizer = optax.adam(1e-3)
    state = jax.eval_shape(lambda key: create_state(recommender, optimizer, key), jax.random.key(0))
    step = jax.jit(make_train_step(recommender, optimizer))
    exported = jax.export.export(step, platforms=("cpu", "cuda", "tpu"))(
        state, training_batch(recommender), jax.random.key(0)
    )
    assert set(exported.platforms) == {"cpu", "cuda", "tpu"}
