"""Noise schedules: how much signal and how much noise there is at each training step.

Everything in Suffuse is written for `x = alpha * x0 + sigma * eps` (arXiv 2107.00630, eq. 1). A
schedule says which `(alpha, sigma)` a step has; what the network is told about the step is a
separate `label`.

Tables are float64. Other libraries build them in float32; asking `betas` for `dtype=torch.float32`
reproduces those tables, rounding included, where exact agreement is wanted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from suffuse.errors import SuffuseError


class Level(NamedTuple):
    """One noise level of `x = alpha * x0 + sigma * eps`.

    While sampling `alpha` and `sigma` are scalars `()`; while training every image has its own and
    they are `(B, 1, 1, 1)`, so that both broadcast over images without further thought.
    """

    alpha: Tensor  # () or (B,1,1,1), signal scale, [0, 1] for variance-preserving schedules
    sigma: Tensor  # () or (B,1,1,1), noise standard deviation, >= 0
    label: Tensor  # () or (B,), what the network is told: an index for discrete schedules


# ---- betas -------------------------------------------------------------------------------------

KINDS = ("linear", "scaled_linear", "cosine", "quad", "sigmoid")

# The names other libraries write into their files for the same curves.
ALIASES = {"squaredcos_cap_v2": "cosine"}


def betas(
    kind: str,
    T: int = 1000,
    start: float = 1e-4,
    end: float = 0.02,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Variances `beta_t` of the forward steps, `(T,)`, each in (0, 1).

    - `linear`: evenly spaced from `start` to `end` (DDPM, arXiv 2006.11239, section 4).
    - `scaled_linear`, `quad`: evenly spaced in the square root. Latent diffusion calls its variant
      just "linear" (`ldm/modules/diffusionmodules/util.py`); DDIM's code calls the curve "quad".
    - `cosine` (diffusers: `squaredcos_cap_v2`): `alpha_bar = cos^2((t + 0.008) / 1.008 * pi / 2)`,
      betas capped at 0.999 (arXiv 2102.09672, eq. 17); `start` and `end` play no part.
    - `sigmoid`: a logistic curve over [-6, 6] scaled to `start`..`end` (DDIM's and GeoDiff's code).

    `dtype=torch.float32` rounds at the same places as diffusers does.

    Raises `SuffuseError` for an unknown kind, `T < 1`, or bounds outside `0 < start <= end < 1`.
    """
    kind = ALIASES.get(kind, kind)
    if kind not in KINDS:
        known = ", ".join((*KINDS, *ALIASES))
        raise SuffuseError(f"unknown beta schedule {kind!r}; known ones are: {known}")
    if T < 1:
        raise SuffuseError(f"a schedule needs at least one step, not T={T}")
    if not 0 < start <= end < 1:
        raise SuffuseError(f"betas must satisfy 0 < start <= end < 1, not start={start}, end={end}")

    if kind == "linear":
        return torch.linspace(start, end, T, dtype=dtype)
    if kind in ("scaled_linear", "quad"):
        return torch.linspace(start**0.5, end**0.5, T, dtype=dtype) ** 2
    if kind == "sigmoid":
        return torch.linspace(-6, 6, T, dtype=dtype).sigmoid() * (end - start) + start
    return _cosine(T).to(dtype)


def _cosine(T: int, cap: float = 0.999) -> Tensor:
    """Betas `(T,)` of the cosine curve; the cap keeps the last step from being a jump to zero."""
    curve = [math.cos((i / T + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(T + 1)]
    steps = [min(1 - after / before, cap) for before, after in pairwise(curve)]
    return torch.tensor(steps, dtype=torch.float64)


def zero_terminal_snr(alpha_bar: Tensor) -> Tensor:
    """Shift and scale `sqrt(alpha_bar)` so that the last step is pure noise, `(T,)` to `(T,)`.

    Algorithm 1 of arXiv 2305.08891: the first step keeps its value and the last becomes exactly 0,
    computed in the dtype of the table.
    """
    root = alpha_bar.sqrt()
    first, last = root[0], root[-1]
    return ((root - last) * (first / (first - last))) ** 2


# ---- the schedule ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Discrete:
    """Variance preserving, in `T` steps: `alpha^2 = alpha_bar`, `sigma^2 = 1 - alpha_bar`.

    `alpha_bar` is `(T,)`, float64, non-increasing, in [0, 1]; index 0 is the cleanest step. Other
    dtypes are widened. Raises `SuffuseError` when the table is anything else.
    """

    alpha_bar: Tensor  # (T,) float64

    def __post_init__(self) -> None:
        table = self.alpha_bar.detach().to("cpu", torch.float64)
        if table.dim() != 1 or not table.numel():
            raise SuffuseError(f"alpha_bar must be a vector, not of shape {tuple(table.shape)}")
        # Written so that NaN fails too.
        if not bool(((table >= 0) & (table <= 1)).all() and (table.diff() <= 0).all()):
            raise SuffuseError("alpha_bar must lie in [0, 1] and never increase; check the betas")
        object.__setattr__(self, "alpha_bar", table)

    @classmethod
    def from_betas(cls, betas: Tensor, zero_snr: bool = False) -> Discrete:
        """The schedule of `betas (T,)`, accumulated in their dtype (arXiv 2006.11239, eq. 4).

        float32 betas give the float32 table of diffusers, widened afterwards. `zero_snr` applies
        `zero_terminal_snr`.
        """
        alpha_bar = (1 - betas).cumprod(0)
        return cls(zero_terminal_snr(alpha_bar) if zero_snr else alpha_bar)

    @property
    def T(self) -> int:
        """Number of training steps."""
        return self.alpha_bar.numel()

    @property
    def betas(self) -> Tensor:
        """`(T,)` float64, `1 - alpha_bar_t / alpha_bar_{t-1}` with `alpha_bar_{-1} = 1`."""
        before = torch.cat([self.alpha_bar.new_ones(1), self.alpha_bar[:-1]])  # (T,)
        return 1 - self.alpha_bar / before

    def at(self, t: Tensor) -> Level:
        """The levels of steps `t (B,)`, int64 in [0, T): float32 `(B, 1, 1, 1)`, on `t`'s device.

        The roots are taken in float64 and looked up on the device of `t`: no step waits for a copy
        back from an accelerator, and none needs float64 there.
        """
        alpha = self.alpha_bar.sqrt().to(t.device, torch.float32)
        sigma = (1 - self.alpha_bar).sqrt().to(t.device, torch.float32)
        return Level(alpha[t].view(-1, 1, 1, 1), sigma[t].view(-1, 1, 1, 1), t)  # (B,1,1,1)
