"""The Python of the README runs as it stands there, with less to train."""

import re
from pathlib import Path

import polars as pl
import pytest

from jaxrec import data

README = Path(__file__).parents[1] / "README.md"
SMALLER = {'"train.epochs": 30': '"train.epochs": 1', '"model.width": 64': '"model.width": 8'}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.* of the items in the histories are not among")
def test_its_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = data.simulate(num_users=120, num_items=60)
    users = [f"u{user}" for user, length in enumerate(log.lengths) for _ in range(length)]
    items = [f"B{item:03d}" for item in log.items]
    pl.DataFrame({"user_id": users, "item_id": items, "ts": log.times}).write_parquet("events.parquet")
    text = "\n".join(re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL))
    for given, smaller in SMALLER.items():
        assert text.count(given) == 1
        text = text.replace(given, smaller)
    names = {}
    exec(compile(text, str(README), "exec"), names)
    assert names["lists"].items.shape == (100, 10)
    assert names["lists"].valid.all()
    assert (tmp_path / "demo.jaxexport").stat().st_size > 1000
    assert type(names["mine"].recommender.attention).__name__ == "Decaying"
