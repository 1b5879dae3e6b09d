"""The mathematics of diffusion, free of any network: schedules, process, noise and samplers."""

from jaxrec.diffusion.noise import Draw, Noise, draw_normal, fold_key, split_key
from jaxrec.diffusion.process import GaussianProcess, Prediction, ReverseStep, reverse_step
from jaxrec.diffusion.sampler import Coefficients, Denoise, Sampler, Trajectory
from jaxrec.diffusion.schedule import (
    CosineSchedule,
    LinearSchedule,
    PiecewiseLinearSchedule,
    Schedule,
    SquareRootSchedule,
    TruncatedCosineSchedule,
    TruncatedLinearSchedule,
)

__all__ = [
    "Coefficients",
    "CosineSchedule",
    "Denoise",
    "Draw",
    "GaussianProcess",
    "LinearSchedule",
    "Noise",
    "PiecewiseLinearSchedule",
    "Prediction",
    "ReverseStep",
    "Sampler",
    "Schedule",
    "SquareRootSchedule",
    "Trajectory",
    "TruncatedCosineSchedule",
    "TruncatedLinearSchedule",
    "draw_normal",
    "fold_key",
    "reverse_step",
    "split_key",
]
