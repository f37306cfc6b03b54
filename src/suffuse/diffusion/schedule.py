"""Noise schedules: how much signal and how much noise there is at each training step.

Everything in Suffuse is written for `x = alpha * x0 + sigma * eps` (arXiv 2107.00630, eq. 1). A
schedule says which `(alpha, sigma)` a step has; what the network is told about the step is a
separate `label`. `Discrete` are the schedules of DDPM and Stable Diffusion, `Flow` is rectified
flow.

Tables are float64. Other libraries build them in float32; asking `betas` for `dtype=torch.float32`
reproduces those tables, rounding included, where exact agreement is wanted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from suffuse.diffusion.spacing import Array
from suffuse.errors import SuffuseError

SMALLEST_ALPHA_BAR = 2.0**-24


class Level(NamedTuple):
    """One noise level of `x = alpha * x0 + sigma * eps`.

    While sampling `alpha` and `sigma` are scalars `()`; while training every image has its own and
    they are `(B, 1, 1, 1)`, so that both broadcast over images without further thought.
    """

    alpha: Tensor  # () or (B,1,1,1), signal scale, [0, 1]
    sigma: Tensor  # () or (B,1,1,1), noise standard deviation, >= 0
    label: Tensor  # () or (B,), what the network is told: an index for discrete schedules


class Schedule(Protocol):
    """What training, grids and samplers ask of a schedule of `T` steps, index 0 the cleanest.

    `s = sigma / scale` is what k-diffusion and diffusers' samplers call sigma. The scale is chosen
    so that `x / scale` runs straight over `s` while x0 and eps stay what they are: Euler's step is
    exact there, and methods of higher order work in these two.
    """

    @property
    def T(self) -> int:
        """Number of training steps."""
        ...

    def at(self, t: Tensor) -> Level:
        """The levels of steps `t (B,)`, int64 in [0, T): `(B, 1, 1, 1)`, on `t`'s device."""
        ...

    def finite(self) -> Schedule:
        """This schedule with every `s` finite."""
        ...

    def s(self, t: Array) -> Array:
        """`s` of indices `t (n,)` in [0, T - 1], also between whole ones; it increases with t."""
        ...

    def label(self, t: Array, s: Array) -> Array:
        """What the network is told at indices `t`, where `s` is this, (n,)."""
        ...

    def split(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """`alpha` and `sigma` of levels `s >= 0`, of any shape, float64."""
        ...

    def scale(self, level: Level) -> Tensor:
        """What `x` and `sigma` are divided by, see above; as `level.alpha`."""
        ...


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


# ---- schedules ---------------------------------------------------------------------------------


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

    def finite(self) -> Discrete:
        """alpha_bar = 0, of zero terminal SNR, becomes 2^-24 and its `s` 4096."""
        # That is large enough to be pure noise and small enough to divide by in float32; diffusers'
        # Euler family and solvers put it in place of infinity, its DDIM does not.
        return Discrete(self.alpha_bar.clamp_min(SMALLEST_ALPHA_BAR))

    @cached_property
    def _table(self) -> Array:
        """`s = sigma / alpha` of every step, (T,); infinite where alpha_bar is 0."""
        alpha_bar = self.alpha_bar.numpy()
        with np.errstate(divide="ignore"):
            return np.sqrt((1 - alpha_bar) / alpha_bar)

    def s(self, t: Array) -> Array:
        """`sigma / alpha`, linear between whole indices."""
        low = np.floor(t).astype(int)
        weight = t - low
        if not weight.any():
            return self._table[low]  # also where the noisiest is infinite
        high = np.minimum(low + 1, self.T - 1)
        return (1 - weight) * self._table[low] + weight * self._table[high]

    def label(self, t: Array, s: Array) -> Array:
        """The index."""
        return t

    def split(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """The variance-preserving ones, exact at 0 and infinity."""
        angle = s.arctan()
        return torch.where(s.isinf(), 0.0, angle.cos()), angle.sin()

    def scale(self, level: Level) -> Tensor:
        """alpha: `x / alpha` is `x0 + s * eps` (arXiv 2206.00364)."""
        return level.alpha


@dataclass(frozen=True)
class Flow:
    """Rectified flow, straight from image to noise: `alpha = 1 - s`, `sigma = s`, s in [0, 1].

    arXiv 2209.03003, eq. 1, with time counted from the image. Index i stands for the time
    `(i + 1) / T`, and `shift` moves times towards noise, in training as in sampling: `s = shift *
    time / (1 + (shift - 1) * time)` (arXiv 2403.03206, eq. 23). The network is told `T * s`, as
    diffusers' FlowMatchEulerDiscreteScheduler tells it.

    Raises `SuffuseError` for `T < 1` or a shift that is not above 0.
    """

    T: int = 1000
    shift: float = 1.0

    def __post_init__(self) -> None:
        if self.T < 1:
            raise SuffuseError(f"a schedule needs at least one step, not T={self.T}")
        if not 0 < self.shift < math.inf:
            raise SuffuseError(f"the shift of a flow must be above 0, not {self.shift}")

    def at(self, t: Tensor) -> Level:
        """The levels of steps `t (B,)`, int64 in [0, T): float32 `(B, 1, 1, 1)`, on `t`'s device.

        Looked up like those of `Discrete`, and for the same reason.
        """
        table = torch.from_numpy(self.s(np.arange(self.T, dtype=np.float64)))  # (T,)
        alpha, sigma, label = (
            part.to(t.device, torch.float32)[t] for part in (1 - table, table, self.T * table)
        )
        return Level(alpha.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1), label)  # (B,1,1,1)

    def finite(self) -> Flow:
        """Itself: s is 1 at most."""
        return self

    def s(self, t: Array) -> Array:
        """sigma, which is the shifted time."""
        time = (t + 1) / self.T
        return self.shift * time / (1 + (self.shift - 1) * time)

    def label(self, t: Array, s: Array) -> Array:
        """`T * s`."""
        return self.T * s

    def split(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """`1 - s` and `s`; nothing is noisier than 1."""
        sigma = s.clamp(max=1.0)
        return 1 - sigma, sigma

    def scale(self, level: Level) -> Tensor:
        """alpha + sigma, which is 1 on the path: `x` is `x0 + s * (eps - x0)`.

        The levels of ancestral steps lie beside the path, and there it is less.
        """
        return level.alpha + level.sigma
