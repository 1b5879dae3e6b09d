"""Reporters: what they show and write, and that all of them are closed."""

import importlib.util
import io

import pytest
from rich.console import Console

from jaxrec.train.logging import JsonLines, RichProgress, Several, Silent, TensorBoard


def step_record(step: int, loss: float = 1.0) -> dict:
    return {
        "step": step,
        "epoch": step / 10,
        "loss": loss,
        "targets_per_second": 1234.0,
        "seconds_left": 61.0,
    }


def evaluation_record(step: int, ndcg: float = 0.5) -> dict:
    return {
        "step": step,
        "epoch": step / 10,
        "loss": 2.5,
        "best": True,
        "seconds": 1.0,
        "ndcg@10": ndcg,
        "hr@10": 0.7,
    }


def test_a_metrics_file_that_cannot_be_written_is_told_with_its_place(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "metrics.jsonl"
    with pytest.raises(OSError, match=f"cannot write to {path}: .*choose another workdir"):
        JsonLines(path).start(1, {"step": 0})


def shown_after(progress: RichProgress) -> str:
    """The bar's words."""
    return progress._progress.tasks[0].description


def test_progress_shows_the_mean_loss_since_the_last_evaluation():
    file = io.StringIO()
    progress = RichProgress(Console(file=file, width=100))
    progress.start(5, {"step": 0, "epoch": 0.0})
    assert shown_after(progress) == "compiling"
    for step, loss, mean in [(1, 4.0, 4.0), (2, 2.0, 3.0), (3, 6.0, 4.0)]:
        progress.steps(step_record(step, loss))
        assert shown_after(progress) == f"loss {mean:.4f}   1,234 targets/s   at most 1:01 left"
    progress.evaluation(evaluation_record(3))
    progress.steps(step_record(4, 1.0))
    assert shown_after(progress).startswith("loss 1.0000 ")
    progress.close()
    lines = file.getvalue().splitlines()
    assert lines == ["epoch    0.3   loss 2.5000   validation NDCG@10 0.5000   HR@10 0.7000  best so far"], (
        "no bar where there is no terminal"
    )


def test_progress_shows_the_metric_that_selects():
    file = io.StringIO()
    progress = RichProgress(Console(file=file, width=100))
    progress.start(5, {"step": 0, "epoch": 0.0})
    for name, values in (
        ("mrr@5", {"mrr@5": 0.25, "hr@5": 0.75}),
        ("hr@5", {"hr@5": 0.75}),
        ("mrr", {"mrr": 0.5}),
    ):
        record = {name: value for name, value in evaluation_record(3).items() if "@" not in name}
        progress.evaluation({**record, "selected_by": name, **values})
    progress.close()
    shown = [
        line.split("validation ")[1].removesuffix("  best so far") for line in file.getvalue().splitlines()
    ]
    assert shown == ["MRR@5 0.2500   HR@5 0.7500", "HR@5 0.7500", "MRR 0.5000"]


def test_progress_says_where_it_goes_on_once_there_is_a_step():
    file = io.StringIO()
    progress = RichProgress(Console(file=file, width=100))
    progress.start(5, {"step": 2000, "epoch": 2.5})
    assert not file.getvalue()
    progress.steps(step_record(2001))
    progress.steps(step_record(2002))
    progress.close()
    assert file.getvalue() == "going on from step 2,000 (epoch 2.5)\n"


def test_all_reporters_are_closed_though_one_fails(tmp_path):
    class Failing(Silent):
        def close(self):
            raise OSError("no space")

    lines = JsonLines(tmp_path / "metrics.jsonl")
    several = Several(Failing(), lines)
    several.start(1, {"step": 0, "epoch": 0.0})
    with pytest.raises(OSError, match="no space"):
        several.close()
    assert lines._file is None


@pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None,
    reason="needs the extra tensorboard, which is not part of the extra test",
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tensorboard's own imports
def test_tensorboard_reads_every_scalar_once_also_after_resuming(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def train(first: int, last: int) -> None:
        reporter = TensorBoard(tmp_path)
        reporter.start(5, {"step": first, "epoch": first / 10})
        for step in range(first + 1, last + 1):
            reporter.steps(step_record(step, loss=step + first / 100))
        reporter.evaluation(evaluation_record(last))
        reporter.close()

    train(0, 6)
    train(4, 8)  # the last checkpoint of the killed run was that of step 4
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    assert {"train/loss", "train/targets_per_second", "validation/ndcg@10", "validation/best"} <= set(
        read.Tags()["scalars"]
    )
    losses = [(event.step, round(event.value, 2)) for event in read.Scalars("train/loss")]
    assert losses == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5.04), (6, 6.04), (7, 7.04), (8, 8.04)]
    assert [event.step for event in read.Scalars("validation/ndcg@10")] == [8]
