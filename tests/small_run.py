"""A small run on a small log with text ids."""

import jaxrec
from jaxrec import data
from jaxrec.models.encoder import EncoderRecommender
from jaxrec.train.optimizer import OptimizerConfig
from jaxrec.train.options import TrainConfig

MODEL = EncoderRecommender(max_length=8, width=16, num_layers=1, dropout_rate=0.1)


def small_config(**changes) -> jaxrec.Config:
    """Two epochs of SASRec."""
    return jaxrec.preset(
        "sasrec",
        model=MODEL,
        train=TrainConfig(epochs=2, batch_targets=256, steps_per_call=2),
        optimizer=OptimizerConfig(learning_rate=1e-2),
        **changes,
    )


def make_split(seed: int = 0) -> data.Split:
    """A log with text ids, one item never in the training part."""
    log = data.simulate(num_users=150, num_items=60, seed=seed)
    sequences = [
        [f"i{item}" for item in log.items[a:b]] for a, b in zip(log.offsets, log.offsets[1:], strict=False)
    ]
    sequences[0][-1] = "only-in-test"
    users = [f"u{row}" for row in range(len(sequences))]
    return data.leave_one_out(data.Interactions.from_sequences(sequences, users=users, name="small"))
