"""``fit``: from a config and a split log to a run."""

import contextlib
import dataclasses
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxrec import artifact
from jaxrec.config import Config, checked_json, differences
from jaxrec.devices import processes
from jaxrec.files import training_alone
from jaxrec.models.popularity import PopularityRecommender
from jaxrec.recommender import Recommender
from jaxrec.run import Run
from jaxrec.train.logging import JsonLines, Reporter, RichProgress, Several, Silent
from jaxrec.train.progress import Progress, TrainResult

if TYPE_CHECKING:
    from jaxrec.data.splits import Split
    from jaxrec.data.windows import WindowPlan
    from jaxrec.train.checkpoint import Checkpoints
    from jaxrec.train.loop import Trainer

logger = logging.getLogger(__name__)


def fit(
    config: Config,
    split: "Split",
    workdir: str | Path | None = None,
    *,
    progress: bool = False,
    reporter: Reporter | None = None,
) -> Run:
    """Trains a model, chooses the checkpoint by ``evaluation.select_by`` (validation NDCG@10), and returns it as a run.

    With a ``workdir`` the run is saved there, and a run that was cut off, at whatever moment, goes on
    from its last checkpoint to the same result; a complete run is loaded, and only titles and categories of its items
    are written, if they are new.

    Several processes (``jaxrec.devices.distributed``) call it alike, with one ``workdir`` that all reach, and train one
    model; only process 0 reports progress.

    Args:
      config: settings of model, optimizer and training. Its ``data`` section is not read: that of the run says what
        the split was loaded from (``Split.loaded_from``), and is ``None`` where it was made in Python.
      split: the data.
      workdir: directory of the run; ``None`` keeps nothing.
      progress: whether to show a bar and a line for each evaluation, as ``train.py`` does.
      reporter: told of the progress as well, see ``jaxrec.train.logging``.

    Raises:
      ImportError: there is no rich to show the progress with.
      ValueError: the split has nothing to learn from, the config holds a class that is not registered
        (``jaxrec.register``) or could not be read back, ``workdir`` holds a run on other data or of another
        configuration, or several processes have no ``workdir`` or differ in settings or data.
      FloatingPointError: the loss is not finite.
      OSError: ``workdir`` cannot be written to, or another training is at work in it.
      KeyboardInterrupt: a signal ended the training, and there is no ``workdir`` from which to go on. With one, the run
        is returned as far as it has come, ``interrupted`` set.
    """
    if not hasattr(split, "interactions"):
        raise ValueError(
            f"fit needs a split log and got {split!r:.200}; pass jaxrec.data.leave_one_out(log), or temporal(log)"
        )
    if progress:
        reporter = Several(RichProgress(), reporter or Silent())
    config = dataclasses.replace(config, data=split.loaded_from)
    content = checked_json(config)
    log = split.interactions
    recommender = dataclasses.replace(config.model, num_items=log.num_items)
    item_counts = split.train_item_counts()
    card = artifact.data_card(split)
    settings = {"config": content, "data": card}
    processes.check_same("settings or data", settings, differences)
    if workdir is None and processes.several() and not isinstance(recommender, PopularityRecommender):
        raise ValueError(
            "several processes write their checkpoints together; give a workdir that all can reach"
        )

    def make_run(result: TrainResult) -> Run:
        return Run(
            config=config,
            recommender=recommender,
            params=result.params,
            catalogue=artifact.catalogue_of(log),
            item_counts=item_counts,
            data=card,
            split=split,
            workdir=None if workdir is None else Path(workdir),
            training_seconds=result.progress.seconds,
            interrupted=result.interrupted,
        )

    if workdir is None:
        with tempfile.TemporaryDirectory(prefix="jaxrec-") as name:
            result = _train(config, recommender, split, Path(name), reporter, temporary=True)
        if result.interrupted:
            raise KeyboardInterrupt("training was stopped, and without a workdir nothing of it is kept")
        return make_run(result)
    directory = Path(workdir)
    processes.on_main(lambda: artifact.check(directory, config, card))
    result = _completed(config, recommender, directory)
    if result is not None:
        if not isinstance(recommender, PopularityRecommender):
            evaluated = result.progress.evaluated_epoch if len(split.validation) else 0
            processes.on_main(lambda: artifact.check_end(directory, config, evaluated))
        processes.on_main(lambda: artifact.renew_metadata(directory, config, log))
        return make_run(result)
    with training_alone(directory):
        artifact.prepare(directory, config, split, item_counts)
        result = _train(config, recommender, split, directory, reporter)
        run = make_run(result).save(directory)
        if not result.interrupted:
            artifact.complete(directory, dataclasses.asdict(result.progress))
    return run


def _completed(config: Config, recommender: Recommender, directory: Path) -> TrainResult | None:
    """The weights in the directory, if they are of a training that has nothing left to do; else ``None``."""
    record = processes.from_main(artifact.completed(directory))
    if record is None:
        return None
    try:
        progress = Progress(**record)
    except TypeError:  # of another version
        return None
    nothing_left = progress.finished(config.train) and progress.evaluated_epoch <= config.train.epochs
    if not (nothing_left or isinstance(recommender, PopularityRecommender)):
        return None
    params, error = None, None
    try:
        params = artifact.read_params(directory, recommender, config.parallel)
    except ValueError as found:
        error = found
    error = processes.all_or_none(error)
    if error is not None:
        logger.warning("%s; they are taken from the checkpoints again", error)
        return None
    return TrainResult(params, 0, progress, interrupted=0)


def plan_training(
    config: Config, recommender: Recommender, starts: np.ndarray, ends: np.ndarray, num_devices: int = 1
) -> "WindowPlan":
    """The training windows of a config, and the order in which they come.

    Args:
      config: its ``train`` section and seed count.
      recommender: its ``max_length`` and ``target_positions`` decide the windows.
      starts: int64 ``[U]``, where each user's training items begin in the flat log.
      ends: int64 ``[U]``, where they end (one past).
      num_devices: how many devices share the rows of a batch.

    Raises:
      ValueError: no user has two training items.
    """
    from jaxrec.data.windows import ROW_MULTIPLE, plan_windows

    return plan_windows(
        starts,
        ends,
        max_length=recommender.max_length,
        batch_targets=config.train.batch_targets,
        steps=config.train.steps_per_call,
        positions=recommender.target_positions,
        seed=config.seed,
        length_buckets=config.train.length_buckets,
        row_multiple=int(np.lcm(ROW_MULTIPLE, num_devices)),
    )


def _train(
    config: Config,
    recommender: Recommender,
    split: "Split",
    directory: Path,
    reporter: Reporter | None,
    *,
    temporary: bool = False,
) -> TrainResult:
    """Trains in a directory, which is removed afterwards if it is temporary, or goes on there."""
    if isinstance(recommender, PopularityRecommender):
        params = recommender.counts_to_params(split.train_item_counts())
        return TrainResult(params, 0, Progress(), interrupted=0)
    from jaxrec.train.checkpoint import Checkpoints

    keep = config.train.keep_checkpoints
    checkpoints = Checkpoints(directory / artifact.CHECKPOINTS, keep=keep, temporary=temporary)
    with contextlib.closing(checkpoints):
        trainer = _trainer(config, recommender, split, directory, checkpoints, reporter)
        artifact.keep_config(directory, config)
        return trainer.run()


def _trainer(
    config: Config,
    recommender: Recommender,
    split: "Split",
    directory: Path,
    checkpoints: "Checkpoints",
    reporter: Reporter | None,
) -> "Trainer":
    from jaxrec.evaluation import validation_function
    from jaxrec.train.loop import Trainer
    from jaxrec.train.parallel import Placement

    log = split.interactions
    placement = Placement(config.parallel)
    plan = plan_training(config, recommender, log.offsets[:-1], split.train_ends, placement.num_devices)
    return Trainer(
        recommender,
        log.items,
        plan,
        placement,
        config.train,
        config.optimizer,
        checkpoints=checkpoints,
        evaluate=validation_function(config, recommender, split),
        seed=config.seed,
        select_by=config.evaluation.select_by,
        reporter=Several(JsonLines(directory / artifact.METRICS), reporter or Silent())
        if processes.is_main()
        else Silent(),
    )


__all__ = ["fit", "plan_training"]
