"""The exported program: what it holds at once. ``test_all_recommenders.py`` exports every model."""

import jax
import numpy as np
import pytest
from helpers import BagRecommender
from numpy.testing import assert_array_equal

from jaxrec import export
from jaxrec.lists import recommend
from jaxrec.recommender import table_rows

BAG = BagRecommender(num_items=1000, max_length=6)
COUNTS = np.arange(1001) % 7  # every seventh item was never trained


@pytest.mark.parametrize(("platforms", "rows"), [(("cpu",), 300), (("cpu", "cuda", "tpu"), 600)])
def test_scores_of_the_whole_catalogue_never_exist_at_once(monkeypatch, platforms, rows):
    params = np.asarray(BAG.init(jax.random.key(0)))
    monkeypatch.setattr(export, "ROWS_AT_ONCE", {"cpu": 300, "accelerator": 600})
    program = export.exported_recommend(BAG, params, COUNTS, k=5, platforms=platforms)
    text = program.mlir_module()
    assert f"tensor<?x{rows}xf32>" in text
    assert f"tensor<?x{table_rows(1000)}xf32>" not in text
    items = np.random.default_rng(0).integers(1, 1001, (3, 6), np.int32)
    allowed = np.pad(COUNTS > 0, (0, table_rows(1000) - 1001))
    expected = recommend(BAG, params, items, k=5, exclude=items, allowed=allowed)
    found, scores = program.call(items, items, np.uint32(0))
    assert_array_equal(found, expected.items)
    assert_array_equal(scores, expected.scores)


def test_an_empty_history_gets_popular_items_but_those_that_it_excludes():
    params = np.asarray(BAG.init(jax.random.key(0)))
    program = export.exported_recommend(BAG, params, COUNTS, k=3, platforms=("cpu",))
    items, exclude = np.zeros((3, 6), np.int32), np.zeros((3, 2), np.int32)
    exclude[1] = 13, 6
    items[2, -2:] = 17, 40
    found, scores = program.call(items, exclude, np.uint32(0))
    assert_array_equal(found[:2], [[6, 13, 20], [20, 27, 34]])  # the first with six interactions each
    np.testing.assert_allclose(scores[:2], 6 / COUNTS.sum(), rtol=1e-6)
    allowed = COUNTS > 0
    assert_array_equal(found[2:], recommend(BAG, params, items[2:], k=3, allowed=allowed).items)
    unknown = np.full((3, 6), 5000, np.int32)
    assert_array_equal(program.call(unknown, exclude, np.uint32(0))[0][0], [6, 13, 20])
