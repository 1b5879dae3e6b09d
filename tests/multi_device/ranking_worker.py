"""Run by test_sharded_ranking.py in a process of its own with 8 fake devices: ranks in several ways.

Writes what each way gives into ``results.npz`` in the folder named on the command line, and a run that was
used on 8 devices into ``run`` there.
"""

import dataclasses
import importlib
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

import jaxrec
from jaxrec import artifact, data
from jaxrec.batch import right_align
from jaxrec.devices.mesh import ParallelConfig, make_mesh
from jaxrec.devices.sharding import USERS, WHOLE, available_mesh, constrain, place, place_params, place_rows
from jaxrec.evaluation import validation_function
from jaxrec.lists import scoring
from jaxrec.metrics.diversity import CategoryTable
from jaxrec.models.diffurec import DiffuRecRecommender
from jaxrec.models.diffurecsys import DiffuRecSysRecommender
from jaxrec.models.encoder import EncoderRecommender
from jaxrec.models.popularity import PopularityRecommender
from jaxrec.nn.diffusion_attention import DiffusionAttention
from jaxrec.recommender import table_rows
from jaxrec.train.evaluate import evaluate
from jaxrec.train.ranking import ListFacts, RankSettings, rank_users, zero_counts

NUM_ITEMS, MAX_LENGTH, USER_COUNT = 300, 8, 45
SIZES = {
    "num_items": NUM_ITEMS,
    "max_length": MAX_LENGTH,
    "width": 16,
    "num_layers": 1,
    "num_heads": 2,
    "dropout_rate": 0.0,
}
MESHES = {
    "one": None,
    **{
        f"{8 // parts}x{parts}": make_mesh(ParallelConfig(devices=8, model_devices=parts))
        for parts in (1, 4, 8)
    },
    "1x5": make_mesh(
        ParallelConfig(devices=5, model_devices=5)
    ),  # 5 divides neither the table's 384 rows nor B
}


class Rows(NamedTuple):
    """Targets as ``evaluate`` takes them."""

    starts: np.ndarray
    positions: np.ndarray

    @property
    def users(self) -> np.ndarray:
        """Each target is another user's."""
        return np.arange(len(self.starts))


@dataclasses.dataclass(frozen=True)
class BagRecommender:
    """The query is the sum of the history's embeddings, small integers: exact scores, full of ties."""

    num_items: int = NUM_ITEMS
    max_length: int = MAX_LENGTH
    stochastic: bool = False
    target_positions: str = "all"

    def init(self, key):
        table = jax.random.randint(key, (table_rows(self.num_items), 3), -1, 2).astype(jnp.float32)
        return {"item_embedding": {"table": table}}

    def query(self, params, items, key):
        return jnp.sum(jnp.where(items[..., None] > 0, self.items(params)[items], 0.0), axis=1)

    def items(self, params):
        return params["item_embedding"]["table"]


def models() -> dict:
    """Recommenders with their parameters; embeddings are scaled up, so that scores lie well apart."""
    made = {
        "bag": BagRecommender(),
        "sasrec": EncoderRecommender(**SIZES),
        "d-genatt": EncoderRecommender(**SIZES, attention=DiffusionAttention()),
        "diffurec": DiffuRecRecommender(**SIZES, num_inference_steps=3),
        "diffurecsys": DiffuRecSysRecommender(**SIZES, **VISIBLE),
        "diffurecsys-cached": DiffuRecSysRecommender(**SIZES, **VISIBLE, form="history-cached"),
    }
    with_params = {name: (model, jax.jit(model.init)(jax.random.key(0))) for name, model in made.items()}
    for name in ("sasrec", "d-genatt"):
        with_params[name][1]["item_embedding"]["table"] *= 30
    popularity = PopularityRecommender(NUM_ITEMS)
    counts = np.random.default_rng(3).integers(0, 9, NUM_ITEMS + 1)
    return with_params | {"popularity": (popularity, popularity.counts_to_params(counts))}


def make_log() -> tuple[np.ndarray, Rows]:
    """A flat log, and 45 targets after histories of 0 to 20 items."""
    random = np.random.default_rng(0)
    lengths = random.integers(0, 21, USER_COUNT)
    ends = np.cumsum(lengths + 1)
    return random.integers(1, NUM_ITEMS + 1, ends[-1]).astype(np.int32), Rows(ends - lengths - 1, ends - 1)


def requests(histories: np.ndarray, whole: np.ndarray) -> dict[str, dict]:
    """Arguments of ``recommend`` by name; ``whole`` are the items to exclude."""
    random = np.random.default_rng(1)
    allowed = np.zeros(table_rows(NUM_ITEMS), bool)
    allowed[1::3] = True
    few = np.zeros(table_rows(NUM_ITEMS), bool)
    few[[3, 50, 96, 97, 200, 299]] = True
    shared = np.array([5, 3, 3, 290, 0, NUM_ITEMS + 3, 17, 44, -1, 192, *whole[4, -5:]], np.int32)
    own = random.integers(0, NUM_ITEMS + 9, (len(histories), 40)).astype(np.int32)
    everything = {"items": histories, "k": 10, "exclude": whole}
    return {
        "plain": {"items": histories, "k": 10},
        "chunks": {**everything, "chunk": 20},
        "allowed": {**everything, "allowed": allowed},
        "few-left": {**everything, "allowed": few, "k": NUM_ITEMS + 100},
        "candidates": {**everything, "candidates": shared},
        "many-of-candidates": {**everything, "candidates": shared, "k": 30, "allowed": allowed},
        "own-candidates": {**everything, "candidates": own},
        "one-user": {**everything, "items": histories[7:8], "exclude": whole[7:8]},
    }


VISIBLE = {"num_inference_steps": 3, "uncertainty": 0.5}
"""A reverse process whose draws show in the scores."""
LISTS_ALONE = ("d-genatt", "diffurecsys", "diffurecsys-cached")
"""Models whose lists are compared, but not their evaluation, which asks for the same queries."""
WAYS_OF_REQUEST = {"plain": ("8x1", "2x4", "1x8"), "chunks": ("2x4", "1x5"), "allowed": ("8x1", "1x5")}


def bag_lists(bag, params, histories, whole) -> dict[str, np.ndarray]:
    """``recommend`` in every way that differs."""
    found = {}
    for name, request in requests(histories, whole).items():
        for way in ("one", *WAYS_OF_REQUEST.get(name, ("2x4", "1x8"))):
            lists = jaxrec.recommend(bag, params, **request, mesh=MESHES[way])
            found |= {f"recommend bag {name}/{way}/{key}": value for key, value in lists._asdict().items()}
    return found


def model_lists(name, model, params, histories, whole) -> dict[str, np.ndarray]:
    """Lists on each mesh, with samples and their spread; and one history alone, on one device and on 8."""
    request = {"k": 10, "key": jax.random.key(5), "num_samples": 2, "with_spread": True}
    found = {}
    for way in ("one", "8x1", "2x4") if name == "diffurec" else ("one", "2x4"):
        window = histories[:, -model.max_length :]
        lists = jaxrec.recommend(model, params, window, exclude=whole, **request, mesh=MESHES[way])
        found |= {f"recommend {name}/{way}/{key}": value for key, value in lists._asdict().items()}
        if way == "2x4" and model.stochastic:
            row = slice(9, 10)
            lists = jaxrec.recommend(
                model, params, window[row], exclude=whole[row], **request, mesh=MESHES[way]
            )
            found |= {f"alone {name}/{way}/{key}": value for key, value in lists._asdict().items()}
            together = {key: found[f"recommend {name}/one/{key}"][row] for key in lists._fields}
            found |= {f"alone {name}/one/{key}": value for key, value in together.items()}
    return found


def evaluations(name, model, params, log_items, rows) -> dict[str, np.ndarray]:
    """All that ``evaluate`` gives, on each mesh; the batches of 20 become 24 on 8 devices."""
    counts = np.bincount(log_items, minlength=NUM_ITEMS + 1)
    category_rows = np.random.default_rng(2).integers(0, 6, (NUM_ITEMS + 1, 2)).astype(np.int32)
    facts = {"item_counts": counts, "categories": CategoryTable(category_rows, 5), "batch_size": 20}
    ways = {"": (("1x8",) if name == "diffurec" else ("8x1", "2x4", "1x8"), facts)}
    if name == "bag":
        ways |= {
            " chunks": (("2x4", "1x5"), {**facts, "chunk": 20, "exclude_seen": False}),
            " ranks": (("1x8",), {"with_lists": False}),
            " one user": (("2x4",), facts),
            " blocks": (("1x8",), {**facts, "batch_size": 48}),
        }
    found = {}
    for what, (meshes, arguments) in ways.items():
        chosen = Rows(rows.starts[:1], rows.positions[:1]) if what == " one user" else rows
        scoring.CPU_CELLS = 48 * 32 if what == " blocks" else 2**21  # the 48 users against 48 rows, by 32
        for way in ("one", *meshes):
            given = params
            if way != "one" and what == "":  # as training holds them
                given = place_params(params, MESHES[way])
            result = evaluate(
                model, given, log_items, chosen, key=jax.random.key(5), **arguments, mesh=MESHES[way]
            )
            values = {
                "ranks": result.ranks,
                **{f"metric {key}": value for key, value in result.metrics.items()},
            }
            if result.lists is not None:
                values |= {"items": result.lists}
            found |= {f"evaluate {name}{what}/{way}/{key}": value for key, value in values.items()}
    return found


COLLECTIVE = re.compile(r"= (.*?) (?:all-gather|all-reduce|all-to-all|collective-permute)(?:-start)?\(")


def gathered_rows(compiled_text: str) -> list[int]:
    """Leading dimensions of all matrices, and more, that devices exchange in a program."""
    results = " ".join(match[1] for match in COLLECTIVE.finditer(compiled_text))
    shapes = [shape.split(",") for shape in re.findall(r"\w+\[([\d,]+)\]", results)]
    return [int(shape[0]) for shape in shapes if len(shape) > 1]


def gathers(model, params, histories, mesh: Mesh) -> dict[str, np.ndarray]:
    """Leading dimensions of what the programs of evaluation and ``recommend`` gather."""
    evaluation = importlib.import_module("jaxrec.train.evaluate")
    lists = importlib.import_module("jaxrec.lists.recommending")
    params, key = place_params(params, mesh), place(jax.random.key(0), mesh, WHOLE)
    table = evaluation._table(model, params, mesh)
    rows = place_rows(histories, mesh)
    settings = RankSettings(NUM_ITEMS, (5, 10), 0, None, mesh)
    users = place((histories[:, -1], histories, np.ones(len(histories), np.float32)), mesh, USERS)
    counts = zero_counts(settings, table.shape[0])
    query = evaluation._query(model, params, rows, key, 1, mesh)
    programs = {
        "_table": evaluation._table.lower(model, params, mesh),
        "_query": evaluation._query.lower(model, params, rows, key, 1, mesh),
        "rank_users": rank_users.lower(settings, query, table, ListFacts(None, None), *users, counts),
        "_recommend": lists._recommend.lower(
            model, lists._Settings(10, 1, False, None, mesh), params, rows, key, rows, None, None
        ),
        "the table itself": jax.jit(lambda table: constrain(table + 1, mesh, WHOLE)).lower(table),
    }
    part = table.addressable_shards[0].data.shape
    return {
        "part": np.asarray(part),
        **{
            name: np.asarray(gathered_rows(program.compile().as_text())) for name, program in programs.items()
        },
    }


def use_run(folder: Path) -> dict[str, np.ndarray]:
    """A run on all 8 devices, its table in 2 parts: its figures, its lists, and those of validation."""
    split = data.leave_one_out(data.simulate(num_users=40, num_items=150))
    config = jaxrec.preset(
        "sasrec",
        model=EncoderRecommender(**{**SIZES, "num_items": 0}),
        parallel=ParallelConfig(model_devices=2),
    )
    model = dataclasses.replace(config.model, num_items=150)
    params = jax.jit(model.init)(jax.random.key(1))
    counts, card = split.train_item_counts(), artifact.data_card(split)
    run = jaxrec.Run(config, model, params, artifact.catalogue_of(split.interactions), counts, card, split)
    assert dict(run.mesh.shape) == {"data": 4, "model": 2}
    validate = validation_function(config, model, split)
    (folder / "run").mkdir()
    run.save(folder / "run")
    loaded = jaxrec.load(folder / "run", split=split)
    table = loaded.params["item_embedding"]["table"]
    assert table.addressable_shards[0].data.shape == (table.shape[0] // 2, 16)
    frame = run.recommend(run_histories(), k=5)
    assert loaded.recommend(run_histories(), k=5).equals(frame)
    similar = loaded.similar_items(range(1, 120, 9), k=4)
    return {
        "similar": similar["similar_item_id"].to_numpy(),
        "cosines": similar["score"].to_numpy(),
        "pair_scores": loaded.score(run_histories(), [3, 70, 141])["score"].to_numpy(),
        "vectors": loaded.item_vectors()[1],
        "items": frame["item_id"].to_numpy(),
        "scores": frame["score"].to_numpy(),
        "ndcg": run.evaluate("test", save=False)["ndcg@10"],
        "validation": validate(place_params(params, run.mesh))["ndcg@10"],
    }


def run_histories() -> list[list[int]]:
    """Of 11 users, the last one new."""
    return [[1 + (7 * user + step) % 150 for step in range(user + 1)] for user in range(10)] + [[]]


def fallbacks() -> dict[str, np.ndarray]:
    """Meshes of configs that ask for more than the 8 devices."""
    asked = {"12 by 4": (12, 4), "12 by 6": (12, 6), "9 by 3": (9, 3), "all": (0, 2)}
    meshes = {name: available_mesh(ParallelConfig("jit", *numbers)) for name, numbers in asked.items()}
    return {name: np.asarray(list(mesh.shape.values())) for name, mesh in meshes.items()}


if __name__ == "__main__":
    assert jax.device_count() == 8
    folder = Path(sys.argv[1])
    log_items, rows = make_log()
    users = [log_items[start:end] for start, end in zip(*rows, strict=True)]
    histories, whole = right_align(users, MAX_LENGTH), right_align(users, 20)
    results = {}
    for name, (model, params) in models().items():
        if name not in LISTS_ALONE:
            results |= evaluations(name, model, params, log_items, rows)
        if name == "bag":
            results |= bag_lists(model, params, histories, whole)
        else:
            results |= model_lists(name, model, params, histories, whole)
        if name in ("sasrec", "diffurec"):  # that read the table in different ways
            found = gathers(model, params, histories[:40], MESHES["2x4"])
            results |= {f"gathers {name}/2x4/{key}": value for key, value in found.items()}
    results |= {f"run/4x2/{key}": value for key, value in use_run(folder).items()}
    results |= {f"fallback/8/{key}": value for key, value in fallbacks().items()}
    np.savez(folder / "results.npz", **{key: value for key, value in results.items() if value is not None})
