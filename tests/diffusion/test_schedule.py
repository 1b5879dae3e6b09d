"""Schedules against published values and against what every schedule must be."""

import numpy as np
import pytest

from jaxrec.diffusion import (
    CosineSchedule,
    LinearSchedule,
    PiecewiseLinearSchedule,
    Schedule,
    SquareRootSchedule,
    TruncatedCosineSchedule,
    TruncatedLinearSchedule,
)

ALL = [
    LinearSchedule,
    TruncatedLinearSchedule,
    PiecewiseLinearSchedule,
    CosineSchedule,
    TruncatedCosineSchedule,
    SquareRootSchedule,
]


def test_truncated_linear_has_the_published_values():
    """DiffuRec: β from 0.013125 to 0.635; ᾱ 0.9869, 0.408, 0.035, 1e-6 at t = 0, 8, 16, 31."""
    schedule = TruncatedLinearSchedule(32)
    np.testing.assert_allclose(schedule.betas()[[0, -1]], [0.013125, 0.635], rtol=1e-6)
    alpha_bars = schedule.alpha_bars()
    np.testing.assert_allclose(alpha_bars[[0, 8, 16]], [0.9869, 0.408, 0.035], atol=5e-4)
    np.testing.assert_allclose(alpha_bars[31], 1e-6, rtol=0.02)


def test_truncated_linear_lowers_an_end_above_one():
    """With T = 10, 0.02·100 + 0.01 is above 1, so the end is 0.001·100 + 0.01."""
    np.testing.assert_allclose(TruncatedLinearSchedule(10).betas()[[0, -1]], [0.02, 0.11], rtol=1e-6)


def test_hand_computed_ends():
    np.testing.assert_allclose(LinearSchedule(32).betas()[[0, -1]], [0.003125, 0.625], rtol=1e-6)
    betas = PiecewiseLinearSchedule(32).betas()
    np.testing.assert_allclose(betas[[0, 9, 10, -1]], [0.013125, 0.003125, 0.003125, 0.625], rtol=1e-6)
    np.testing.assert_allclose(
        CosineSchedule(32).alpha_bars()[15],
        (np.cos((0.5 + 0.008) / 1.008 * np.pi / 2) / np.cos(0.008 / 1.008 * np.pi / 2)) ** 2,
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        TruncatedCosineSchedule(32).alpha_bars()[[0, 16]],
        np.cos(np.array([0.1, 0.6]) / 1.1 * np.pi / 2) ** 2,
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        SquareRootSchedule(32).alpha_bars()[7], (1 - np.sqrt(0.2501)) / (1 - np.sqrt(1e-4)), rtol=1e-5
    )


@pytest.mark.parametrize("schedule_class", ALL)
@pytest.mark.parametrize("num_steps", [1, 2, 5, 11, 32, 200, 1000])
def test_every_schedule_loses_signal_step_by_step(schedule_class, num_steps):
    if schedule_class is PiecewiseLinearSchedule and num_steps < 11:
        pytest.skip("its falling piece has 10 steps")
    schedule = schedule_class(num_steps)
    betas, alpha_bars = schedule.betas(), schedule.alpha_bars()
    assert betas.shape == alpha_bars.shape == (num_steps,)
    assert betas.dtype == alpha_bars.dtype == np.float32
    assert np.all(betas > 0)
    assert np.all(betas <= np.float32(0.999))
    assert np.all(np.diff(schedule.exact_alpha_bars(), prepend=1.0) < 0)
    np.testing.assert_allclose(alpha_bars, np.cumprod(1 - betas.astype(np.float64)), rtol=1e-3)
    assert hash(schedule) == hash(schedule_class(num_steps))


def test_errors():
    with pytest.raises(ValueError, match="at least 1 step"):
        LinearSchedule(0)
    with pytest.raises(ValueError, match="falling_steps"):
        PiecewiseLinearSchedule(10)
    with pytest.raises(NotImplementedError, match="_raw_betas"):
        Schedule(4).betas()
