"""Times SASRec of RecTools through its public interface; a process of its own, asked by ``exchange``."""

import importlib.metadata
import logging
import time
import warnings

import numpy as np
import pandas as pd
from exchange import Histories, Request, peak_bytes, read_request, single_times, timed, write_answer
from pytorch_lightning import Callback, Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel


class EpochClock(Callback):
    """Seconds of each epoch, and an end to training after so many; ``share`` is that of the epoch's batches."""

    def __init__(self, limit: float):
        self.limit, self.seconds, self.start, self.share = limit, [], 0.0, 0.0

    def on_train_epoch_start(self, trainer, module) -> None:
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self.share = (batch_idx + 1) / trainer.num_training_batches
        trainer.should_stop = bool(self.limit) and time.perf_counter() - self.start >= self.limit

    def on_train_epoch_end(self, trainer, module) -> None:
        self.seconds.append(time.perf_counter() - self.start)


def model_of(request: Request) -> SASRecModel:
    """SASRec of the request's size, with the full softmax."""

    def trainer() -> Trainer:
        return Trainer(
            max_epochs=request.epochs,
            accelerator="gpu" if request.device == "cuda" else "cpu",
            devices=1,
            precision="bf16-mixed" if request.dtype == "bfloat16" else "32-true",
            callbacks=[EpochClock(request.seconds)],
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            logger=False,
        )

    return SASRecModel(
        n_blocks=request.num_layers,
        n_heads=request.num_heads,
        n_factors=request.width,
        dropout_rate=request.dropout_rate,
        session_max_len=request.max_length,
        loss="softmax",
        batch_size=request.batch_size,
        epochs=request.epochs,
        recommend_batch_size=request.recommend_batch,
        recommend_torch_device=request.device,
        get_trainer_func=trainer,
    )


def dataset_of(histories: Histories) -> Dataset:
    """The training part; the time of an interaction is its place."""
    users, items = histories.training()
    when = pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(len(users)), unit="s")
    frame = pd.DataFrame(
        {Columns.User: users, Columns.Item: items, Columns.Weight: 1.0, Columns.Datetime: when}
    )
    return Dataset.construct(frame)


def main() -> None:
    """Trains, recommends, answers."""
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    request, histories, answer = read_request()
    dataset, model = dataset_of(histories), model_of(request)
    model.fit(dataset)
    clock = next(callback for callback in model.fit_trainer.callbacks if isinstance(callback, EpochClock))
    lengths = histories.train_ends - histories.offsets[:-1]
    known = np.flatnonzero(lengths >= 1)

    def recommend(users: np.ndarray) -> pd.DataFrame:
        return model.recommend(users, dataset, k=request.k, filter_viewed=True)

    write_answer(
        answer,
        importlib.metadata.version("rectools"),
        clock.seconds,
        histories.window_targets(request.max_length),
        clock.share,
        bulk_users=len(known[: request.bulk_users]),
        bulk_seconds=timed(lambda: recommend(known[: request.bulk_users])),
        single_seconds=single_times(
            lambda user: recommend(known[user : user + 1]), list(range(request.single_users))
        ),
        peak_memory_bytes=peak_bytes(),
    )


if __name__ == "__main__":
    main()
