"""The optimizer of a run: Adam with weight decay in two forms, warm-up, decay, clipping, averaging, from optax."""

import dataclasses
from typing import Literal

import jax
import optax

from jaxrec.choices import check_choices
from jaxrec.train.averaging import with_average
from jaxrec.train.gradients import clip_by_norm
from jaxrec.typing import Params

LearningRateDecay = Literal["constant", "cosine", "linear", "step"]


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """How parameters are updated.

    Attributes:
      name: ``adamw``; ``adam``, whose weight decay is an L2 term, as PyTorch's ``Adam(weight_decay=...)``; or ``sgd``
        (plain, without momentum and weight decay; for tests of equality).
      learning_rate: the rate at the end of warm-up, from which it decays.
      warmup_steps: optimizer steps over which the rate rises linearly to ``learning_rate``; the first one takes
        ``learning_rate`` / ``warmup_steps``. 0: no warm-up.
      decay: how the rate falls after warm-up: ``constant`` (not at all), ``cosine`` or ``linear`` (down to
        ``final_fraction`` of it at the last epoch), or ``step`` (times ``step_factor`` every ``step_epochs`` epochs).
      final_fraction: for ``cosine`` and ``linear`` decay: the fraction of ``learning_rate`` that is left at the last
        epoch.
      step_factor: for ``step`` decay: what the rate is multiplied by every ``step_epochs`` epochs.
      step_epochs: for ``step`` decay: epochs from one drop of the rate to the next, counted from the end of warm-up.
      weight_decay: with ``adamw``, the share of a weight, times the learning rate, that is taken off at each step
        (decoupled); with ``adam``, this times the weight is added to the gradient before Adam's scaling, so that far
        smaller values act. On matrices of the network, never on biases, norms and scales, and on the item and
        position tables only with ``decay_embeddings``. 0: none.
      decay_embeddings: whether weight decay acts on the item and position tables too.
      clip_norm: a gradient of a larger Euclidean norm, over all parameters, is scaled down to this one; 0 does not
        clip.
      b1: decay rate of Adam's running mean of gradients, 0 to 1.
      b2: decay rate of Adam's running mean of squared gradients, 0 to 1.
      ema_decay: where above 0, an exponential moving average of the parameters is kept, which is what is evaluated
        and returned; this is the share of it that a step keeps, so that about the last 1 / (1 - ``ema_decay``) steps
        count. It takes the memory of the parameters once more. 0: none.
    """

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    decay: LearningRateDecay = "constant"
    final_fraction: float = 0.0
    step_factor: float = 0.1
    step_epochs: int = 100
    weight_decay: float = 0.0
    decay_embeddings: bool = False
    clip_norm: float = 0.0
    b1: float = 0.9
    b2: float = 0.98
    ema_decay: float = 0.0

    def __post_init__(self):
        check_choices(self)
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        for name in ("warmup_steps", "weight_decay", "clip_norm", "final_fraction"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be at least 0 and below 1, got {self.ema_decay}")


def learning_rate_schedule(
    config: OptimizerConfig, steps_per_epoch: float, total_steps: int
) -> optax.Schedule:
    """The learning rate as a function of the optimizer step."""
    rate, warmup = config.learning_rate, config.warmup_steps
    after = max(total_steps - warmup, 1)
    match config.decay:
        case "constant":
            schedule = optax.constant_schedule(rate)
        case "cosine":
            schedule = optax.cosine_decay_schedule(rate, after, alpha=config.final_fraction)
        case "linear":
            schedule = optax.linear_schedule(rate, rate * config.final_fraction, after)
        case "step":
            interval = max(round(config.step_epochs * steps_per_epoch), 1)
            schedule = optax.exponential_decay(rate, interval, config.step_factor, staircase=True)
    if not warmup:
        return schedule
    # Step 0 already moves: the rise reaches the full rate at step ``warmup``.
    return optax.join_schedules([optax.linear_schedule(rate / warmup, rate, warmup), schedule], [warmup])


def decayed(params: Params, *, embeddings: bool) -> Params:
    """Which leaves decay: matrices, and tables (leaves named ``table``) if asked.

    Never norms, scales and biases, also not those with an axis of heads (``[H, C]``) or lags.
    """

    def decays(path: tuple, leaf: jax.Array) -> bool:
        name = str(getattr(path[-1], "key", ""))
        if name == "scale" or name.endswith("bias"):
            return False
        return leaf.ndim >= 2 and (embeddings or name != "table")

    return jax.tree_util.tree_map_with_path(decays, params)


def make_optimizer(
    config: OptimizerConfig, *, steps_per_epoch: float, total_steps: int
) -> optax.GradientTransformation:
    """The optax transformation of a config."""
    schedule = learning_rate_schedule(config, steps_per_epoch, total_steps)
    moments = {"b1": config.b1, "b2": config.b2}

    def mask(params: Params) -> Params:
        return decayed(params, embeddings=config.decay_embeddings)

    match config.name:
        case "sgd":
            update = optax.sgd(schedule)
        case "adam":
            penalty = optax.add_decayed_weights(config.weight_decay, mask)
            update = optax.chain(penalty, optax.adam(schedule, **moments))
        case "adamw":
            update = optax.adamw(schedule, **moments, weight_decay=config.weight_decay, mask=mask)
    if config.clip_norm:
        update = optax.chain(clip_by_norm(config.clip_norm), update)
    return with_average(update, config.ema_decay) if config.ema_decay else update


__all__ = ["LearningRateDecay", "OptimizerConfig", "decayed", "learning_rate_schedule", "make_optimizer"]
