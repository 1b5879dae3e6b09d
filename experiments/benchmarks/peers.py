"""Section ``peers``: SASRec of other libraries and ours, one after the other, on the same data at the same size."""

import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.apart import run_apart
from benchmarks.dataset import Arrays
from benchmarks.processes import run
from benchmarks.rows import Row, failed, row, skipped
from benchmarks.settings import Settings
from benchmarks.timing import Times
from jaxrec.config import Config
from jaxrec.devices.sharding import available_mesh, users_at_once
from jaxrec.recommender import Recommender

NEEDS: tuple[str, ...] = ("polars", "grain", "orbax")
DETAILS: tuple[str, ...] = ()
PROGRAMS = Path(__file__).parent / "peer_libraries"
OWN_IDS = ", own ids"
K = 10


@dataclasses.dataclass(frozen=True)
class Peer:
    """A library, or the code beside a paper, with a SASRec of its own.

    Attributes:
      name: as it calls itself.
      distribution: the installed package whose version stands in the records.
      install: how a person gets it.
      own_ids: whether its lists take and give the caller's ids, as ``Run.recommend`` does, or numbers.
      prefixes: whether it trains on each prefix by itself, or on whole windows.
      loss: that it trains with, by its name in ``jaxrec.losses``; ours is the same.
      dtypes: compute types that it can train in; in bfloat16 it is PyTorch's automatic mixed precision.
      folder: the setting that says where its code lies; none for what is installed.
    """

    name: str
    distribution: str
    install: str
    own_ids: bool = False
    prefixes: bool = False
    loss: str = "softmax"
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    folder: str = ""

    def source(self, settings: Settings) -> str:
        """Where its code lies, as given; empty where it is installed or not given."""
        return getattr(settings, self.folder) if self.folder else ""


PEERS: dict[str, Peer] = {
    "rectools": Peer(
        "RecTools", "rectools", "pip install 'rectools[torch]' into an environment", own_ids=True
    ),
    "recbole": Peer(
        "RecBole",
        "recbole",
        "pip install 'recbole' into an environment",
        prefixes=True,
        dtypes=("float32",),
    ),
    "gsasrec": Peer(
        "gSASRec on torch",
        "torch",
        "git clone https://github.com/asash/gSASRec-pytorch, give the folder with --gsasrec-folder, pip install"
        " 'torch' into an environment",
        loss="generalized_binary",
        folder="gsasrec_folder",
    ),
}
LOSS_NAMES = {"softmax": "full softmax", "generalized_binary": "gBCE, 256 negatives"}


def cases(settings: Settings) -> list[dict[str, Any]]:
    """One a library and compute type; the model is SASRec, with the full softmax unless the peer has another loss."""
    found = []
    for library in settings.peers:
        loss = {} if PEERS[library].loss == "softmax" else {"loss": PEERS[library].loss}
        types = [dtype for dtype in settings.dtypes if dtype in PEERS[library].dtypes]
        found += [{"library": library, "preset": "sasrec", "dtype": dtype} | loss for dtype in types]
    return found


def measure(settings: Settings, case: dict[str, Any]) -> Iterator[Row]:
    """Rows for training, bulk and one user, each with both figures and their ratio; ours is measured first.

    A target is a position whose next item is predicted. RecTools and gSASRec train on the newest window of each
    user, RecBole on every prefix by itself, jaxrec on all positions of all windows. jaxrec's first epoch, which
    compiles, is not counted; a peer's is, or what of it ``--peer-seconds`` allows. Lists of a library that
    takes and gives the caller's ids are set beside ours under own ids. A peer's bulk is timed once, after its
    training.
    """
    python = os.path.abspath(settings.peers_python) if settings.peers_python else sys.executable
    peer = PEERS[case["library"]]
    version = installed_version(python, peer.distribution)
    if version is None or (peer.folder and not peer.source(settings)):
        which = "this" if python == sys.executable else "that"
        reason = f"{case['library']} is not there for {which} Python; {peer.install} and give it with --peers-python"
        yield skipped(case, reason)
        return
    arrays, config = settings.arrays(), settings.config(case)
    recommender = dataclasses.replace(config.model, num_items=arrays.num_items)
    ours = run_apart("benchmarks.peers:measure_ours", settings=dataclasses.asdict(settings), case=case)
    try:
        theirs = measure_theirs(settings, case, python, arrays, config, recommender, ours["device"])
    except RuntimeError as error:
        yield failed(case, str(error))
        return
    sizes = {name: getattr(recommender, name) for name in ("width", "num_layers", "num_heads", "max_length")}
    case = {**case, **arrays.card(), **sizes, "version": theirs["version"]}
    case["own_ids"] = peer.own_ids
    epoch = float(np.median(theirs["epoch_seconds"])) / theirs["epoch_share"]
    parts = {
        "training": ("targets_per_second", theirs["epoch_targets"] / epoch, theirs["epoch_seconds"]),
        "bulk": ("users_per_second", theirs["bulk_users"] / theirs["bulk_seconds"], [theirs["bulk_seconds"]]),
        "one user": ("p50_seconds", float(np.median(theirs["single_seconds"])), theirs["single_seconds"]),
    }
    for part, (figure, their, seconds) in parts.items():
        found = ours[part + (OWN_IDS if case["own_ids"] and part != "training" else "")]
        our = found[figure]
        results = {figure: our, f"peer_{figure}": their}
        results["times_as_fast"] = their / our if part == "one user" else our / their
        if part == "training":
            results |= {"epoch_seconds": found["epoch_seconds"], "peer_epoch_seconds": epoch}
            results["peer_epoch_share"] = theirs["epoch_share"]
            results["peak_memory_bytes"] = found["peak_memory_bytes"]
            results["peer_peak_memory_bytes"] = theirs["peak_memory_bytes"]
        if part == "one user":
            results["p99_seconds"] = found["p99_seconds"]
            results["peer_p99_seconds"] = float(np.percentile(seconds, 99))
        times = Times(seconds, [math.nan] * len(seconds), warmups=int(part == "one user")).record()
        times.pop("median_processor_seconds")  # of another process
        yield row({**case, "part": part}, results, {**times, "of": "the peer"})


def installed_version(python: str, library: str) -> str | None:
    """The version of a library for an interpreter; ``None`` if it has none.

    Raises:
      RuntimeError: there is no such interpreter.
    """
    code = f"import importlib.metadata as m; print(m.version({library!r}))"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    except OSError as error:
        raise RuntimeError(f"--peers-python {python} cannot be run: {error.strerror}") from error
    return done.stdout.strip() if done.returncode == 0 else None


def measure_ours(settings: dict[str, Any], case: dict[str, Any]) -> dict[str, Any]:
    """What a process of jaxrec alone finds: training by the loop, then lists."""
    import jax

    from benchmarks import recommending, training
    from jaxrec.train.parallel import Placement

    known = Settings(**{name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()})
    arrays, config = known.arrays(), known.config(case)
    recommender = dataclasses.replace(config.model, num_items=arrays.num_items)
    placement = Placement(config.parallel)
    plan = training.plan_of(arrays, recommender, config, placement.num_devices)
    _, found = training.time_loop(known, config, recommender, arrays, plan, placement)
    lists = recommending.measure(known, {"preset": case["preset"], "dtype": case["dtype"]})
    parts = {row["case"]["part"]: row["results"] for row in lists}
    return {"device": jax.default_backend(), "training": found, **parts}


def measure_theirs(
    settings: Settings,
    case: dict[str, Any],
    python: str,
    arrays: Arrays,
    config: Config,
    recommender: Recommender,
    device: str,
) -> dict[str, Any]:
    """What a peer's process answers.

    Raises:
      RuntimeError: it failed; gives the last line that it wrote.
    """
    peer = PEERS[case["library"]]
    rows, source = config.train.batch_targets // recommender.max_length, peer.source(settings)
    with tempfile.TemporaryDirectory(prefix="jaxrec-benchmark-") as name:
        folder = Path(name)
        np.savez(
            folder / "data.npz", items=arrays.items, offsets=arrays.offsets, train_ends=arrays.train_ends
        )
        (folder / "work").mkdir()
        request = {
            "answer": str(folder / "answer.json"),
            "data": str(folder / "data.npz"),
            "folder": str(folder / "work"),
            "width": recommender.width,
            "num_layers": recommender.num_layers,
            "num_heads": recommender.num_heads,
            "feed_forward": recommender.width * recommender.feed_forward_multiplier,
            "max_length": recommender.max_length,
            "dropout_rate": recommender.dropout_rate,
            "batch_size": config.train.batch_targets if peer.prefixes else max(rows, 1),
            "epochs": settings.peer_epochs,
            "seconds": settings.peer_seconds,
            "k": K,
            "bulk_users": settings.bulk_users or arrays.num_users,
            "single_users": min(settings.peer_users or settings.one_user_repeats, arrays.num_users // 2),
            "recommend_batch": users_at_once(
                config.evaluation.batch_size, available_mesh(config.parallel)
            ).batch_size,
            "device": "cuda" if device == "gpu" else "cpu",
            "dtype": case["dtype"],
            "source": os.path.abspath(source) if source else "",
        }
        done = run(
            [python, str(PROGRAMS / f"{case['library']}_sasrec.py")],
            input=json.dumps(request),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder / "work",
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        )
        answer = folder / "answer.json"
        if not answer.exists():
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            raise RuntimeError(f"{case['library']}: {lines[-1] if lines else f'code {done.returncode}'}")
        return json.loads(answer.read_text(encoding="utf-8"))


def describe(case: dict[str, Any], results: dict[str, Any]) -> tuple[str, str]:
    """Both figures and their ratio."""
    peer = f"{PEERS[case['library']].name} {case['version']}"
    details = OWN_IDS if case["own_ids"] and case["part"] != "training" else ""
    if case["dtype"] != "float32":
        details += f", {case['dtype']}"
    what = (
        f"SASRec {case['part']}, {case['data']}, D {case['width']}, {case['num_layers']} layers, L"
        f" {case['max_length']}, {LOSS_NAMES[PEERS[case['library']].loss]}{details}: jaxrec beside {peer}"
    )
    ratio = f"{results['times_as_fast']:.3g}x as fast"
    if case["part"] == "one user":
        ours, theirs = (f"p50 {1e3 * results[name]:.2f} ms" for name in ("p50_seconds", "peer_p50_seconds"))
        return what, f"{ours}; peer {theirs}; {ratio}"
    name, unit = {
        "training": ("targets_per_second", "targets/s"),
        "bulk": ("users_per_second", "users/s"),
    }[case["part"]]
    their = f"{results[f'peer_{name}']:,.0f} {unit}"
    if results.get("peer_epoch_share", 1) < 1:
        their += f" in {results['peer_epoch_share']:.2g} of an epoch"
    return what, f"{results[name]:,.0f} {unit}; peer {their}; {ratio}"


__all__ = [
    "DETAILS",
    "NEEDS",
    "PEERS",
    "Peer",
    "cases",
    "describe",
    "installed_version",
    "measure",
    "measure_ours",
]
