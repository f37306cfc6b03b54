"""Grids: the noise levels a sampler visits, noisiest first.

Every convention about steps lives here as a named field of `GridSpec`, and none in a sampler:
which indices are visited, how noise levels lie between them, what the network is told, where the
last step ends, and how large the first noise is. Other programs differ in exactly these, and the
differences are visible: the last level alone moves a Stable Diffusion image by 0.25 %.

Below, `s` is what k-diffusion and diffusers' Euler family call sigma: `sigma / alpha`, or for
rectified flow sigma itself (`schedule.Schedule`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from suffuse.diffusion.schedule import Level, Schedule
from suffuse.diffusion.spacing import CURVES, SPACINGS, Array, distilled
from suffuse.errors import SuffuseError

NAMES = ("leading", "trailing", "linspace", *CURVES)  # what people may ask for by one word


@dataclass(frozen=True)
class GridSpec:
    """The conventions of a grid. The defaults are those of DDIM's paper.

    `final` says where the last step ends: at alpha_bar = 1, the clean image ("one"), at the
    schedule's alpha_bar[0] ("first"), or at its `s` with alpha = 1 ("first_s": diffusers' Euler
    with `final_sigmas_type="sigma_min"` leaves its result unscaled).
    """

    spacing: Literal["leading", "trailing", "linspace", "uniform", "quad", "distilled"] = "leading"
    offset: int = 0  # added to every index; Stable Diffusion's `leading` and `uniform` use 1
    rounded: bool = True  # `linspace`: to whole indices; the Euler family keeps real ones
    lowest: float | None = None  # `linspace`: a real index to end at, instead of 0
    drop_cleanest: bool = False  # lay out n + 1 points and leave out the last (DPM-Solver, UniPC)
    taught: int = 50  # `distilled`: on how many steps the model was distilled
    min_lambda: float = float("-inf")  # leave out indices with log(alpha / sigma) below this
    between: Literal["s", "log_s"] = "s"  # what is linear between two indices; k-diffusion: log_s

    curve: Literal["karras", "exponential", "polyexponential", "beta"] | None = None
    rho: float | None = None  # of the curve; None is its usual value
    bounds: Literal["table", "spaced"] = "table"  # curve from end to end of what
    min_s: float | None = None  # the curve's cleanest level, instead of the bound
    max_s: float | None = None  # the curve's noisiest level, instead of the bound

    label: Literal["index", "nearest", "floor", "quarter_log_s"] = "index"
    final: Literal["one", "first", "first_s"] = "one"  # where the last step ends, see below
    last_alpha: float = 1.0  # of the clean image at `final="one"`, which others round
    landing: Literal["next", "stride"] = "next"  # a step from t ends on the next level, or T//n on
    terminal: Literal["zero", "clamp"] = "zero"  # alpha_bar = 0 (zero terminal SNR) stays, or not
    tail: Literal["floor", "ceil"] = "floor"  # how image-to-image rounds its number of steps
    start: Literal["unit", "sigma"] = "unit"  # standard deviation of the first noise: 1, or sigma

    def named(self, word: str) -> GridSpec:
        """This grid with the spacing or the curve that `word` of `NAMES` names.

        Raises `SuffuseError` listing them for any other word.
        """
        if word in CURVES:  # between real indices a stride of whole ones has no meaning
            return replace(self, curve=word, landing="next")  # type: ignore[arg-type]
        if word not in NAMES:
            raise SuffuseError(f"unknown grid {word!r}: choose one of {', '.join(NAMES)}")
        return replace(self, spacing=word, curve=None)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Grid:
    """`n` steps over `n + 1` levels, noisiest first, made by `make_grid`.

    The numbers stay on the CPU in float64, so that no step waits for an accelerator; a scalar of
    that kind multiplies images of any device and dtype. Labels are handed out on `device`.
    """

    alpha: Tensor  # (n+1,) float64
    sigma: Tensor  # (n+1,) float64
    label: Tensor  # (n,) float32, an index with fractions unless the spec says otherwise
    start: float  # standard deviation of the noise to start from
    schedule: Schedule
    stride: int = 0  # of `landing="stride"`: how many indices a step spans; 0 means to the next
    skipped: int = 0  # steps cut off the head by `tail`
    rounding: Literal["floor", "ceil"] = "floor"  # of `tail`
    device: torch.device | None = None

    def __len__(self) -> int:
        """The number of steps."""
        return len(self.label)

    @property
    def whole(self) -> int:
        """The number of steps before any were cut off."""
        return len(self) + self.skipped

    def level(self, i: int) -> Level:
        """Level `i` of `0..n`; level `n` is where the last step ends, and has label 0."""
        label = self.label[i] if i < len(self) else self.label.new_zeros(())
        return Level(self.alpha[i], self.sigma[i], label.to(self.device or "cpu"))

    def target(self, i: int) -> Level:
        """Where step `i` ends: level `i + 1`, or a stride on from `i`."""
        if not self.stride:
            return self.level(i + 1)
        t = int(self.label[i]) - self.stride
        return self.at(t) if t >= 0 else self.level(len(self))

    def source(self, i: int) -> Level:
        """Where a step that ends on level `i >= 1` begins: level `i - 1`, or a stride back."""
        if not self.stride:
            return self.level(i - 1)
        return self.at(int(self.label[i]) + self.stride)

    def steps(self) -> Iterator[tuple[int, Level, Level]]:
        """`(i, level i, target of step i)` for every step."""
        for i in range(len(self)):
            yield i, self.level(i), self.target(i)

    def at(self, t: int) -> Level:
        """The level of index `t` of the schedule, on the grid or not."""
        index = np.array([t], dtype=np.float64)
        return self._level(index, self.schedule.s(index))

    def of(self, s: float) -> Level:
        """The schedule's level with this `s`, on the grid or not.

        An index for its label is interpolated in `log s`, as k-diffusion's `sigma_to_t` does.
        """
        given = np.array([s])
        return self._level(_index_of(given, _table(self.schedule)), given)

    def _level(self, t: Array, s: Array) -> Level:
        alpha, sigma = self.schedule.split(torch.from_numpy(s)[0])
        label = torch.from_numpy(self.schedule.label(t, s))[0]
        return Level(alpha, sigma, label.to(self.device or "cpu", torch.float32))

    def s(self, level: Level) -> float:
        """`s` of any level; infinite where its scale is 0."""
        scale = float(self.schedule.scale(level))
        return float(level.sigma) / scale if scale else math.inf

    def tail(self, strength: float) -> Grid:
        """The last `strength * n` steps, rounded, for image-to-image; `strength` in (0, 1].

        Raises `SuffuseError` when that leaves no step.
        """
        keep = min(int(len(self) * strength), len(self))
        if self.rounding == "ceil":  # written as in diffusers, for the same last digit
            keep = len(self) - int(max(len(self) - len(self) * strength, 0))
        if keep < 1:
            raise SuffuseError(
                f"strength {strength} of {len(self)} steps leaves none: raise either of them"
            )
        cut = len(self) - keep
        return replace(
            self,
            alpha=self.alpha[cut:],
            sigma=self.sigma[cut:],
            label=self.label[cut:],
            skipped=self.skipped + cut,
        )


def make_grid(
    schedule: Schedule,
    n: int,
    spec: GridSpec = GridSpec(),
    device: torch.device | str | None = None,
) -> Grid:
    """The levels that `n` steps visit under `spec`; labels go to `device`.

    `uniform` may give more steps than `n` and `min_lambda` fewer, as in the programs they come
    from. Raises `SuffuseError` when the schedule cannot be cut into `n` steps so.
    """
    if n < 1:
        raise SuffuseError(f"steps must be at least 1, not {n}")
    if n > schedule.T:
        raise SuffuseError(f"this model's schedule has {schedule.T} steps; {n} are too many")
    if spec.terminal == "clamp":
        schedule = schedule.finite()
    table = _table(schedule)  # (T,)
    t = _indices(table, n, spec)  # (n,)
    s = _between(schedule, t, spec)
    if spec.curve is not None:
        s = _curve(table, s, n, spec)
        t = _index_of(s, table)
    if not (np.diff(s) < 0).all():
        raise SuffuseError(f"{n} steps are too many for {spec.spacing!r} spacing; ask for fewer")

    last = 0.0 if spec.final == "one" else table[0]
    alpha, sigma = schedule.split(torch.from_numpy(np.append(s, last)))
    if spec.final == "one":
        alpha[-1] = spec.last_alpha
    if spec.final == "first_s":
        alpha[-1], sigma[-1] = 1.0, float(table[0])
    return Grid(
        alpha,
        sigma,
        torch.from_numpy(_labels(schedule.label(t, s), s, spec).astype(np.float32)),
        1.0 if spec.start == "unit" else float(sigma[0]),
        schedule,
        schedule.T // n if spec.landing == "stride" else 0,
        rounding=spec.tail,
        device=None if device is None else torch.device(device),
    )


def _table(schedule: Schedule) -> Array:
    """`s` of every index, (T,), increasing; infinite where alpha_bar is 0."""
    return schedule.s(np.arange(schedule.T, dtype=np.float64))


def _indices(table: Array, n: int, spec: GridSpec) -> Array:
    """The indices of the steps under the spec's spacing, (n,), decreasing."""
    total = len(table)
    if spec.spacing == "distilled":
        t = distilled(n, spec.taught, total)
    else:
        with np.errstate(divide="ignore"):
            used = total - int((-np.log(table) < spec.min_lambda).sum())
        # Leaving out the cleanest of n + 1 points makes the last step as long as the others. The
        # trailing spacing has such a last step by nature.
        points = n + (spec.drop_cleanest and spec.spacing != "trailing")
        t = SPACINGS[spec.spacing](points, used, total)
        if spec.spacing == "linspace" and spec.lowest is not None:
            t = np.linspace(used - 1.0, spec.lowest, points)
        t = t[:n] if points > n else t
        if spec.spacing == "linspace" and spec.rounded:
            t = t.round()
        if spec.spacing in ("leading", "uniform", "quad"):
            t = t + spec.offset
    if not len(t) or t[0] > total - 1:
        raise SuffuseError(
            f"{n} steps with {spec.spacing!r} spacing and offset {spec.offset} leave the schedule "
            f"of {total}; ask for another number"
        )
    return t


def _between(schedule: Schedule, t: Array, spec: GridSpec) -> Array:
    """`s` at real indices `t`, (n,)."""
    low = np.floor(t)
    weight = t - low
    if spec.between == "s" or not weight.any():
        return schedule.s(t)
    high = np.minimum(low + 1, schedule.T - 1.0)
    return np.exp((1 - weight) * np.log(schedule.s(low)) + weight * np.log(schedule.s(high)))


def _curve(table: Array, spaced: Array, n: int, spec: GridSpec) -> Array:
    """The spec's curve of `s`, (n,), decreasing."""
    ends = table[::-1] if spec.bounds == "table" else spaced
    # Bounds are rounded to float32, in which other programs keep them: `label="floor"` can turn
    # on their last digit.
    high, low = float(np.float32(ends[0])), float(np.float32(ends[-1]))
    high, low = spec.max_s or high, spec.min_s or low
    if not 0 < low <= high < np.inf:
        raise SuffuseError(f"a {spec.curve} grid cannot run from s = {high:g} to s = {low:g}")
    if spec.curve is None:
        raise ValueError("the grid has no curve")
    return CURVES[spec.curve](n, low, high, spec.rho)


def _index_of(s: Array, table: Array) -> Array:
    """The real index whose `s` this is, linear in `log s` between indices and clipped to them."""
    # In float32 like diffusers' table, for the same reason as the bounds above.
    logs = np.log(table.astype(np.float32)).astype(np.float64)  # (T,)
    return np.interp(np.log(np.maximum(s, 1e-10)), logs, np.arange(len(table)))


def _labels(label: Array, s: Array, spec: GridSpec) -> Array:
    """What the network is told at each step, (n,), where the schedule says `label`."""
    if spec.label == "nearest":
        return label.round()
    if spec.label == "floor":
        return np.floor(label)
    if spec.label == "quarter_log_s":
        return np.log(s) / 4  # arXiv 2206.00364, table 1: c_noise
    return label
