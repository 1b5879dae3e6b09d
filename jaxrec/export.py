"""A run's ``recommend`` as one compiled program for several platforms, that runs with jax and flatbuffers alone.

The file is what ``jax.export`` serialises: the program with the weights inside. To use it::

    import jax, numpy as np
    program = jax.export.deserialize(bytearray(open("demo.jaxexport", "rb").read()))
    items, scores = program.call(histories, exclude, np.uint32(0))

``histories`` int32 ``[B, L]`` (right-aligned, 0 is padding), ``exclude`` int32 ``[B, S]`` (0 is nothing), a seed
for stochastic models: that of the run's config gives the run's own lists (of one sample). B and S are free, L is the
model's window. It gives items int32 ``[B, K]`` (0 where nothing was left) and scores float32. Ids are internal; the
file with the ending ``.items.csv`` beside it has the external ones, ``item,item_id`` a line. An empty history gets the
most popular items, less those that it excludes.

Memory: beside the weights, scores for ``ROWS_AT_ONCE`` items a history exist at once, however large the catalogue.
The batch is not known when the program is made, so the number is fixed by the platforms it is for. What else jaxrec
chooses by the kind of device (prefix sums, bfloat16 products) is as suits the machine that exports; lists do not
depend on it but for rounding.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from jaxrec import artifact
from jaxrec.lists import recommend
from jaxrec.lists.bulk import trained_items
from jaxrec.lists.recommending import best_items
from jaxrec.lists.scoring import Catalogue, ChunkedScores
from jaxrec.recommender import Recommender
from jaxrec.typing import Array, Params

if TYPE_CHECKING:
    from jaxrec.run import Run

ROWS_AT_ONCE = {"cpu": 2**14, "accelerator": 2**17}
"""Rows of the item table scored at once: as ``recommend`` takes for a batch of 256 on a CPU, of 2,048 elsewhere."""


def exported_recommend(
    recommender: Recommender,
    params: Params,
    item_counts: np.ndarray,
    *,
    k: int,
    platforms: tuple[str, ...],
) -> jax.export.Exported:
    """The exported program; batch and length of the exclusion list are symbolic.

    Args:
      recommender: the model.
      params: its parameters.
      item_counts: ``[num_items + 1]`` interactions of each item in the training part.
      k: length of the lists.
      platforms: the platforms for which the program is lowered.
    """
    params, recommender = jax.tree.map(np.asarray, params), _for_any_platform(recommender)
    allowed = trained_items(recommender, item_counts)
    popularity = np.zeros((len(allowed), 1), np.float32)
    popularity[: len(item_counts), 0] = item_counts / max(item_counts[1:].sum(), 1)
    chunk = ROWS_AT_ONCE["cpu" if set(platforms) == {"cpu"} else "accelerator"]

    def program(items: Array, exclude: Array, seed: Array) -> tuple[Array, Array]:
        lists = recommend(
            recommender,
            jax.tree.map(jnp.asarray, params),
            items,
            k=k,
            key=jax.random.key(seed, impl="threefry2x32"),
            exclude=exclude,
            allowed=jnp.asarray(allowed),
            chunk=chunk,
        )
        empty = ~jnp.any((items > 0) & (items <= recommender.num_items), axis=1, keepdims=True)

        def popular_where_empty() -> tuple[Array, Array]:
            shares = Catalogue(jnp.asarray(popularity), recommender.num_items, jnp.asarray(allowed))
            asked = jnp.ones((items.shape[0], 1))
            popular = best_items(ChunkedScores(asked, shares, exclude, chunk), k)
            return jnp.where(empty, popular.items, lists.items), jnp.where(
                empty, popular.scores, lists.scores
            )

        return jax.lax.cond(jnp.any(empty), popular_where_empty, lambda: (lists.items, lists.scores))

    batch, seen = jax.export.symbolic_shape("batch, seen")
    return jax.export.export(jax.jit(program), platforms=platforms)(
        jax.ShapeDtypeStruct((batch, recommender.max_length), jnp.int32),
        jax.ShapeDtypeStruct((batch, seen), jnp.int32),
        jax.ShapeDtypeStruct((), jnp.uint32),
    )


def _for_any_platform(recommender: Recommender) -> Recommender:
    """The same model without operations that one platform alone has (fused attention on NVIDIA GPUs)."""
    attention = getattr(recommender, "attention", None)
    if not getattr(attention, "fused", False):
        return recommender
    return dataclasses.replace(recommender, attention=attention.clone(fused=False))


def export_run(run: "Run", path: Path, *, k: int, platforms: tuple[str, ...]) -> Path:
    """Writes the program and the table of external ids; returns the program's path.

    Raises:
      ValueError: ``k`` is out of range.
      OSError: the files cannot be written.
    """
    if k < 1:
        raise ValueError(f"k is {k}; ask for at least 1 item")
    with artifact.writing(path.parent, instead="choose another file"):
        path.parent.mkdir(parents=True, exist_ok=True)  # before the work
    k = min(k, run.catalogue.num_items)
    content = exported_recommend(
        run.recommender, run.params, run.item_counts, k=k, platforms=platforms
    ).serialize()
    with artifact.writing(path, instead="choose another file"):
        path.write_bytes(content)
        ids = run.catalogue.item_ids.values.rename("item_id").to_frame()
        ids.with_row_index("item", offset=1).write_csv(path.with_name(path.name + ".items.csv"))
    return path


__all__ = ["export_run", "exported_recommend"]
