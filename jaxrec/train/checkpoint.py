"""Checkpoints through Orbax: atomic, asynchronous, the latest few and the best one, resumable to the bit.

Several processes write one checkpoint together, each the parts of arrays that it holds, into a directory that all
reach; any other number of them, on other devices, can read it.
"""

import contextlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from jaxrec.devices import processes
from jaxrec.devices.mesh import ParallelConfig, make_mesh
from jaxrec.devices.sharding import WHOLE, place
from jaxrec.files import writing
from jaxrec.train.checkpoint_checks import (
    SCORE,
    CheckpointError,
    check_same_shapes,
    read_score,
    shapes_of,
    write_errors,
)
from jaxrec.train.checksum import checksum
from jaxrec.train.state import TrainState
from jaxrec.typing import Params

logger = logging.getLogger(__name__)

DAMAGED = ".damaged"  # ending of a checkpoint that was laid aside
NO_SCORE = -1.0  # of a checkpoint between evaluations; scores are not negative


def check_shapes(directory: Path, like: Any) -> None:
    """Compares names and shapes of a saved tree with those wanted, before anything is read.

    Orbax notices a difference too, but leaves reads under way behind that complain when the process ends.

    Raises:
      CheckpointError: they differ; names the first leaf.
    """
    with contextlib.closing(ocp.StandardCheckpointHandler()) as handler:
        check_same_shapes(handler.metadata(directory).tree, like)


class Checkpoints:
    """The checkpoints of a run in one directory; each holds state, data iterator and progress.

    Attributes:
      directory: where they are, one numbered folder each.
      temporary: whether they are gone when the training is over.
    """

    def __init__(self, directory: str | Path, *, keep: int = 2, temporary: bool = False):
        """Opens or creates the directory.

        A checkpoint whose score cannot be read, at which Orbax would stop, is named in a warning and laid aside.

        Args:
          directory: where the checkpoints lie.
          keep: how many of the latest stay; the best one by ``score`` stays besides.
          temporary: whether the directory is removed when the training is over.

        Raises:
          OSError: the directory cannot be written to.
        """
        self.directory, self.temporary = Path(directory).resolve(), temporary
        policies = [
            checkpoint_managers.LatestN(keep),
            checkpoint_managers.BestN(get_metric_fn=lambda metrics: metrics[SCORE], n=1),
        ]
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
            best_fn=lambda metrics: metrics[SCORE],
            cleanup_tmp_directories=True,
        )
        processes.on_main(self._lay_damaged_aside)
        with self._writing():
            self._manager = ocp.CheckpointManager(
                self.directory, item_names=("state", "data", "progress"), options=options
            )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with writing(self.directory), write_errors():
            yield

    def _lay_damaged_aside(self) -> None:
        """Renames the checkpoints whose score cannot be read, so that Orbax does not see them."""
        for folder in sorted(self.directory.glob("*")):
            if not folder.name.isdecimal():
                continue
            try:
                read_score(folder)
            except CheckpointError as error:
                aside = folder.with_name(folder.name + DAMAGED)
                logger.warning("checkpoint is damaged and laid aside as %s: %s", aside.name, error)
                with writing(self.directory):
                    shutil.rmtree(aside, ignore_errors=True)
                    folder.rename(aside)

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """Step of the checkpoint with the best score; ``None`` if there is no checkpoint."""
        return self._manager.best_step()

    def save(
        self, step: int, state: TrainState, data: Any, progress: dict[str, Any], *, score: float | None = None
    ) -> None:
        """Starts to write a checkpoint; returns once the arrays are copied off the device.

        Args:
          step: optimizer steps taken.
          state: device arrays.
          data: the Grain iterator (its next element is the first one not yet trained on), or ``None``.
          progress: JSON-able record of the loop.
          score: validation score, higher is better; the best one is kept.

        Raises:
          OSError: this checkpoint, or the one before it, cannot be written; those before are kept.
        """
        if step in self._manager.all_steps():
            if score is None:
                return
            with self._writing():
                self._manager.wait_until_finished()  # it may still be on its way
                self._manager.delete(step)  # saved when training was interrupted, before its score was known
        import grain.python as grain

        record = {"progress": progress, "checksum": checksum(state)}
        items = {"state": ocp.args.StandardSave(state), "progress": ocp.args.JsonSave(record)}
        if data is not None:
            items["data"] = grain.PyGrainCheckpointSave(data)
        metrics = {SCORE: NO_SCORE if score is None else score}
        with self._writing():
            self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics, force=True)

    def restore(self, step: int, state: TrainState, data: Any) -> tuple[TrainState, dict[str, Any]]:
        """Reads one checkpoint onto the devices and shardings of ``state``, arrays or shapes with shardings.

        ``data``, the Grain iterator, is put where it was. ``None``, or a checkpoint without its state (the windows
        were cut on the device, or there was another number of processes), leaves it out; the number of the call in
        the record says where to go on.
        """
        import grain.python as grain

        check_shapes(self.directory / str(step) / "state", state)
        abstract = shapes_of(state)
        items = {"state": ocp.args.StandardRestore(abstract), "progress": ocp.args.JsonRestore()}
        own = f"process_{jax.process_index()}-of-{jax.process_count()}.json"  # where Grain keeps it
        if data is not None and (self.directory / str(step) / "data" / own).exists():
            items["data"] = grain.PyGrainCheckpointRestore(data)
        restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        # Orbax notices files that are missing, cut short or structurally broken, not a changed bit of a number.
        if checksum(restored["state"]) != restored["progress"]["checksum"]:
            raise CheckpointError("the numbers read differ from those written (checksum)")
        return restored["state"], restored["progress"]["progress"]

    def restore_latest(self, state: TrainState, data: Any) -> tuple[TrainState, dict[str, Any]] | None:
        """Reads the newest checkpoint that can be read; ``None`` if there is none at all.

        A damaged one is named in a warning and the one before it is taken.

        Raises:
          CheckpointError: there are checkpoints, and none can be read.
        """
        steps = self.steps()[::-1]
        return self._restore_first(steps, state, data, otherwise="the one before it")[0] if steps else None

    def restore_best(self, state: TrainState) -> tuple[TrainState, int]:
        """Reads the checkpoint with the best score; where it is damaged the next best, last those without a score.

        Each damaged one is named in a warning.

        Returns:
          The state and its step.

        Raises:
          CheckpointError: none can be read.
        """
        steps = processes.from_main(sorted(self.steps(), key=self._rank, reverse=True))
        (restored, _), step = self._restore_first(steps, state, None, otherwise="the next best")
        return restored, step

    def _rank(self, step: int) -> tuple[float, int]:
        try:
            score = read_score(self.directory / str(step))
        except CheckpointError:  # damaged since it was opened
            score = None
        return (NO_SCORE if score is None else score), step

    def _restore_first(
        self, steps: list[int], state: TrainState, data: Any, *, otherwise: str
    ) -> tuple[tuple[TrainState, dict[str, Any]], int]:
        """The first of the checkpoints that can be read, and its step."""
        reasons = []
        for step in steps:
            restored, error = None, None
            try:
                restored = self.restore(step, state, data)
            except Exception as found:  # Orbax, tensorstore and Grain raise many kinds for a damaged file
                error = found
            error = processes.all_or_none(error)
            if error is None:
                return restored, step
            reason = f"{self.directory / str(step)}: {str(error).splitlines()[0][:300]}"
            logger.warning("checkpoint cannot be read, trying %s: %s", otherwise, reason)
            reasons.append(reason)
        raise CheckpointError(
            "none of the checkpoints can be read; they are of another model or configuration, or damaged. Use another"
            f" workdir, or delete the checkpoints to start over. What was found: {'; '.join(reasons)}"
        )

    def wait(self) -> None:
        """Waits until everything is written; raises ``OSError`` if it cannot be."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and frees the threads; raises as ``wait`` does."""
        with self._writing():
            self._manager.close()


def save_params(directory: str | Path, params: Params) -> None:
    """Writes parameters alone; a former version is replaced when the new one is whole, and not before.

    Several processes call it together; what each of them has for itself (the same in all) process 0 writes.

    Raises:
      OSError: they cannot be written; a former version is kept.
    """
    directory = Path(directory).resolve()
    new, former = directory.with_name(directory.name + ".partial"), _former(directory)
    with write_errors(), ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(new, _of_all_processes(params), force=True)

    def replace() -> None:
        shutil.rmtree(former, ignore_errors=True)  # of a process that was killed here
        if directory.exists():
            directory.rename(former)
        new.rename(directory)
        shutil.rmtree(former, ignore_errors=True)

    processes.on_main(replace)


def _former(directory: Path) -> Path:
    """Where the former version lies while a new one takes its place."""
    return directory.with_name(directory.name + ".former")


def _of_all_processes(params: Params) -> Params:
    """Parameters that Orbax can write: it refuses arrays that each of several processes has for itself."""
    if not processes.several() or not all(leaf.is_fully_addressable for leaf in jax.tree.leaves(params)):
        return params
    return place(params, make_mesh(ParallelConfig()), WHOLE)


def load_params(directory: str | Path, like: Params) -> Params:
    """Reads parameters onto the devices, shapes and types of ``like`` (arrays or shapes).

    If ``save_params`` was killed while it replaced them, these are the former ones.

    Raises:
      CheckpointError: the directory is missing, damaged, or of another model.
    """
    directory = Path(directory).resolve()
    if not directory.exists() and _former(directory).exists():
        directory = _former(directory)
    if not directory.exists():
        raise CheckpointError(
            f"there are no weights at {directory}: its training has not come to an end; run fit, or train.py, on the"
            " same directory again"
        )
    try:
        check_shapes(directory, like)
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(directory, like)
    except Exception as error:  # as above
        raise CheckpointError(
            f"the weights at {directory} cannot be read into this model: they are damaged or of another"
            f" configuration ({str(error).splitlines()[0][:300]})"
        ) from error


__all__ = ["CheckpointError", "Checkpoints", "load_params", "save_params", "shapes_of", "write_errors"]
