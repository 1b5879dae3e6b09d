"""Logs of interactions: reading, filtering, splitting, simulating, and named public data.

Names are imported on first use, so that ``import jaxrec.data`` needs neither polars nor grain.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxrec.data.catalog import available, load
    from jaxrec.data.formats import read_amazon, read_amazon_items, read_movielens, read_movielens_items
    from jaxrec.data.identifiers import IdMap
    from jaxrec.data.interactions import Interactions
    from jaxrec.data.item_readers import read_items
    from jaxrec.data.items import ItemMetadata
    from jaxrec.data.oracle import OracleScore, oracle_score
    from jaxrec.data.readers import read_interactions, read_sequences
    from jaxrec.data.simulated_process import SimulatedProcess
    from jaxrec.data.simulator import sample, simulate
    from jaxrec.data.source import DataConfig, load_split, read_log
    from jaxrec.data.splits import Split, Targets, leave_one_out, temporal

_MODULE_OF = {
    "IdMap": "identifiers",
    "Interactions": "interactions",
    "ItemMetadata": "items",
    "DataConfig": "source",
    "OracleScore": "oracle",
    "SimulatedProcess": "simulated_process",
    "Split": "splits",
    "Targets": "splits",
    "available": "catalog",
    "leave_one_out": "splits",
    "load": "catalog",
    "load_split": "source",
    "oracle_score": "oracle",
    "read_amazon": "formats",
    "read_amazon_items": "formats",
    "read_interactions": "readers",
    "read_items": "item_readers",
    "read_movielens": "formats",
    "read_log": "source",
    "read_movielens_items": "formats",
    "read_sequences": "readers",
    "sample": "simulator",
    "simulate": "simulator",
    "temporal": "splits",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "DataConfig",
    "IdMap",
    "Interactions",
    "ItemMetadata",
    "OracleScore",
    "SimulatedProcess",
    "Split",
    "Targets",
    "available",
    "leave_one_out",
    "load",
    "load_split",
    "oracle_score",
    "read_amazon",
    "read_amazon_items",
    "read_interactions",
    "read_items",
    "read_log",
    "read_movielens",
    "read_movielens_items",
    "read_sequences",
    "sample",
    "simulate",
    "temporal",
]
