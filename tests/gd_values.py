"""The stored values of guided-diffusion, and the network and the classifier behind them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from suffuse.diffusion.schedule import Discrete, Level, betas

GOLDEN = load_file(Path(__file__).parent / "parity/gd/diffusion/io.safetensors")
# guided-diffusion scales DDPM's bounds by 1000 / T; here T = 100.
SCHEDULES = {
    kind: Discrete.from_betas(betas(kind, 100, 1e-3, 0.2)) for kind in ("linear", "cosine")
}
KINDS = {"PREVIOUS_X": "mean", "START_X": "x0", "EPSILON": "eps"}
VARIANCES = {
    "FIXED_SMALL": "small",
    "FIXED_LARGE": "large",
    "LEARNED": "learned",
    "LEARNED_RANGE": "learned_range",
}
RUNS = {"20": "20", "ddim10": "ddim10", "5_3_2": "5,3,2"}  # our key: their string


class ClosedForm:
    """Smooth, and different at every t; `scale` times the label is the t it sees."""

    def __init__(self, learned: bool, scale: int = 10) -> None:
        self.learned, self.scale = learned, scale

    def prepare(self, cond: object) -> None:
        return None

    def __call__(self, x: Tensor, label: Tensor, context: None = None) -> Tensor:
        t = (label * self.scale).float().view(-1, 1, 1, 1)
        out = (0.6 + 0.4 * t / 1000) * (0.8 * x + 0.3 * (t / 170).sin()).tanh() + 0.05 * x.flip(3)
        if not self.learned:
            return out
        return torch.cat([out, (0.5 * x - 0.2 * (t / 90).cos()).tanh()], 1)

    def raw(self, x: Tensor, level: Level) -> Tensor:
        return self(x, level.label)


def log_prob(x: Tensor, level: Level) -> Tensor:
    """What has the stored gradient, -0.3 x + 0.1 sin(t / 50)."""
    return (-0.15 * x.square() + 0.1 * (level.label / 50).sin() * x).sum((1, 2, 3))


def draws(run: str, name: str) -> Callable[[], Tensor]:
    """The noise of a run, draw by draw."""
    keys = sorted(key for key in GOLDEN if key.startswith(f"run.{run}.{name}."))
    stored = iter([GOLDEN[key] for key in keys])
    return lambda: next(stored)


def close(got: Tensor, expected: Tensor, rtol: float = 1e-5) -> None:
    """Within `rtol` of the largest stored value, which is how the values were measured."""
    allowed = rtol * float(expected.abs().max())
    torch.testing.assert_close(got.expand_as(expected), expected, rtol=0, atol=allowed)
