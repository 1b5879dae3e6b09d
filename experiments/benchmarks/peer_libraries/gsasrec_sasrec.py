"""Times the code beside the gSASRec paper (Petrov, Macdonald 2023), from a clone; asked by ``exchange``."""

import importlib.metadata
import json
import os
import sys
from pathlib import Path

import torch
from exchange import Histories, Limited, peak_bytes, read_request, single_times, timed, write_answer

NAME = "log"
NEGATIVES, CALIBRATION = 256, 0.75


def write_log(histories: Histories, num_items: int) -> None:
    """The training part where its readers look: one user a line; users without events are left out."""
    folder = Path("datasets") / NAME
    (folder / "train").mkdir(parents=True)
    (folder / "val").mkdir()
    (folder / "dataset_stats.json").write_text(json.dumps({"num_items": num_items}))
    starts, ends = histories.offsets[:-1], histories.train_ends
    lines = [" ".join(map(str, histories.items[start:end])) for start, end in zip(starts, ends, strict=True)]
    lines = [line for line in lines if line]
    for part in ("train", "val"):
        (folder / part / "input.txt").write_text("\n".join(lines) + "\n")
    (folder / "val" / "output.txt").write_text("1\n" * len(lines))  # targets are read, and not used here


def train_epoch(
    model: torch.nn.Module, loader, loss, optimizer, padding: int, device: str, rounded: bool
) -> None:
    """One pass over all users: gBCE over every position with its own negatives, Adam."""
    model.train()
    for sequences, negatives in loader:
        sequences, negatives = sequences.to(device), negatives.to(device)
        labels = sequences[:, 1:]
        with torch.autocast(device, torch.bfloat16, enabled=rounded):
            states, _ = model(sequences[:, :-1])
            candidates = torch.cat([labels.unsqueeze(-1), negatives[:, 1:]], dim=-1)
            scores = torch.einsum("bld,blnd->bln", states, model.item_embedding(candidates))
        truth = torch.zeros_like(scores)
        truth[..., 0] = 1
        known = (labels != padding).float()
        (torch.sum(loss(scores, truth) * known.unsqueeze(-1)) / known.sum()).backward()
        optimizer.step()
        optimizer.zero_grad()


def main() -> None:
    """Trains, recommends, answers."""
    request, histories, answer = read_request()
    os.chdir(request.folder)
    sys.path.insert(0, request.source)
    from dataset_utils import get_train_dataloader, get_val_dataloader
    from gbce import gBCE
    from gsasrec import GSASRec

    num_items = int(histories.items.max())
    write_log(histories, num_items)
    model = GSASRec(
        num_items,
        sequence_length=request.max_length,
        embedding_dim=request.width,
        num_heads=request.num_heads,
        num_blocks=request.num_layers,
        dropout_rate=request.dropout_rate,
    ).to(request.device)
    loader = Limited(
        get_train_dataloader(NAME, request.batch_size, request.max_length, NEGATIVES), request.seconds
    )
    loss, optimizer = gBCE(num_items - 1, NEGATIVES, CALIBRATION), torch.optim.Adam(model.parameters())
    padding, rounded = num_items + 1, request.dtype == "bfloat16"
    epochs = [
        timed(lambda: train_epoch(model, loader, loss, optimizer, padding, request.device, rounded))
        for _ in range(request.epochs)
    ]
    model.eval()
    users = get_val_dataloader(NAME, request.recommend_batch, request.max_length)
    users.dataset.inputs = users.dataset.inputs[: request.bulk_users]

    def all_lists() -> None:
        for windows, rated, _ in users:
            with torch.autocast(request.device, torch.bfloat16, enabled=rounded):
                model.get_predictions(windows.to(request.device), request.k, rated)

    def one_list(user: int) -> None:
        window, rated, _ = users.dataset[user]
        with torch.autocast(request.device, torch.bfloat16, enabled=rounded):
            model.get_predictions(window.unsqueeze(0).to(request.device), request.k, [rated])

    write_answer(
        answer,
        importlib.metadata.version("torch"),
        epochs,
        histories.window_targets(request.max_length),
        loader.share,
        bulk_users=len(users.dataset),
        bulk_seconds=timed(all_lists),
        single_seconds=single_times(one_list, list(range(request.single_users))),
        peak_memory_bytes=peak_bytes(),
    )


if __name__ == "__main__":
    main()
