"""Times SASRec of RecBole through its public interface; a process of its own, asked by ``exchange``."""

import importlib.metadata
import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from exchange import Histories, Limited, Request, peak_bytes, read_request, single_times, timed, write_answer
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed
from recbole.utils.case_study import full_sort_scores

NAME = "log"


def write_log(histories: Histories, folder: Path) -> None:
    """The whole log as RecBole's atomic file; the time of an interaction is its place."""
    users = np.repeat(np.arange(histories.num_users), np.diff(histories.offsets))
    frame = pd.DataFrame(
        {"user_id:token": users, "item_id:token": histories.items, "timestamp:float": np.arange(len(users))}
    )
    (folder / NAME).mkdir(parents=True)
    frame.to_csv(folder / NAME / f"{NAME}.inter", sep="\t", index=False)


def config_of(request: Request) -> Config:
    """SASRec of the request's size with the full softmax, split leave-one-out."""
    return Config(
        model="SASRec",
        dataset=NAME,
        config_dict={
            "data_path": request.folder,
            "checkpoint_dir": str(Path(request.folder) / "saved"),
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "eval_args": {
                "split": {"LS": "valid_and_test"},
                "order": "TO",
                "mode": "full",
                "group_by": "user",
            },
            "train_neg_sample_args": None,
            "loss_type": "CE",
            "MAX_ITEM_LIST_LENGTH": request.max_length,
            "hidden_size": request.width,
            "inner_size": request.feed_forward,
            "n_layers": request.num_layers,
            "n_heads": request.num_heads,
            "hidden_dropout_prob": request.dropout_rate,
            "attn_dropout_prob": 0.0,
            "hidden_act": "relu",
            "train_batch_size": request.batch_size,
            "eval_batch_size": request.recommend_batch,
            "epochs": request.epochs,
            "use_gpu": request.device == "cuda",
            "state": "ERROR",
            "show_progress": False,
        },
    )


class ClockedTrainer(Trainer):
    """Notes the seconds of each epoch."""

    def _train_epoch(self, *arguments, **named):
        start = time.perf_counter()
        loss = super()._train_epoch(*arguments, **named)
        self.seconds = [*getattr(self, "seconds", []), time.perf_counter() - start]
        return loss


def main() -> None:
    """Trains, recommends, answers."""
    warnings.simplefilter("ignore")
    request, histories, answer = read_request()
    sys.argv = sys.argv[:1]
    os.chdir(request.folder)  # RecBole makes folders where it stands
    write_log(histories, Path(request.folder))
    config = config_of(request)
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    train, _, test = data_preparation(config, dataset)
    model = SASRec(config, train.dataset).to(config["device"])
    trainer = ClockedTrainer(config, model)
    train = Limited(train, request.seconds)
    trainer.fit(train, valid_data=None, saved=False, verbose=False, show_progress=False)
    tested = np.unique(test.dataset.inter_feat[test.dataset.uid_field].numpy())
    fields = test.dataset.inter_feat[config["ITEM_ID_FIELD"] + config["LIST_SUFFIX"]]
    row_of_user = {int(u): n for n, u in enumerate(test.dataset.inter_feat[test.dataset.uid_field].numpy())}

    def recommend(users: np.ndarray) -> torch.Tensor:
        """Ids ``[n, K]``, the window's items left out."""
        scores = full_sort_scores(users, model, test, device=config["device"])
        seen = fields[[row_of_user[int(user)] for user in users]].to(scores.device)
        return torch.topk(scores.scatter(1, seen, -torch.inf), request.k).indices.cpu()

    def in_batches(users: np.ndarray) -> None:
        for first in range(0, len(users), request.recommend_batch):
            recommend(users[first : first + request.recommend_batch])

    bulk = tested[: request.bulk_users]
    write_answer(
        answer,
        importlib.metadata.version("recbole"),
        trainer.seconds,
        len(train.dataset),
        train.share,
        bulk_users=len(bulk),
        bulk_seconds=timed(lambda: in_batches(bulk)),
        single_seconds=single_times(
            lambda user: recommend(tested[user : user + 1]), list(range(request.single_users))
        ),
        peak_memory_bytes=peak_bytes(),
    )


if __name__ == "__main__":
    main()
