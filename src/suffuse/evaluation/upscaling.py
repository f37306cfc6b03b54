"""How good an upscaler is: its pictures and bicubic's, against those that were made small."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from suffuse.data.pairs import shrink
from suffuse.errors import SuffuseError
from suffuse.evaluation.features import Network, look
from suffuse.evaluation.metrics import frechet, psnr, ssim
from suffuse.evaluation.pictures import to_levels, to_range
from suffuse.evaluation.statistics import Gaussian
from suffuse.systems.sr3 import SuperResolution
from suffuse.weights.pixel import Inference

SHOWN = 8  # rows of a sheet


@dataclass(frozen=True)
class Drawing:
    """How pictures are drawn. Picture i uses seed + i, and further draws of it seeds after all
    others'; `draws` of each are averaged besides."""

    seed: int = 0
    steps: int | None = None
    sampler: str | None = None
    draws: int = 1


class UpscaleScore(NamedTuple):
    """Means over pictures, compared at 8 bits, as files keep them.

    psnr: decibels, ssim: up to 1; higher is better
    consistency: mean squared error of the picture made small again, against what went in, both in
        [0, 1] (2104.07636, section 4.1); lower is better
    distance: the feature distance between the sets, None without a network; lower is better
    """

    psnr: float
    ssim: float
    consistency: float
    distance: float | None


@dataclass(frozen=True)
class UpscaleScores:
    """Of one draw, of the mean of several (None for one), and of bicubic; `count` pictures."""

    drawn: UpscaleScore
    mean: UpscaleScore | None
    bicubic: UpscaleScore
    count: int


def evaluate_upscaling(
    system: SuperResolution,
    batches: Iterable[np.ndarray],
    drawing: Drawing,
    network: Network | None = None,
    progress: Callable[[int], None] = lambda done: None,
    sheet: Path | None = None,
) -> UpscaleScores:
    """Scores on batches (B, H, W, 3) uint8 of one size each, divisible by the factor.

    sheet: a file for the first pictures: what went in, what came out, and the picture itself

    Raises SuffuseError for another size, and for fewer than two pictures.
    """
    sets = _Sets(system, batches, drawing, progress)
    kinds = 3 if drawing.draws == 1 else 4  # the reference, bicubic, one draw, and the mean
    if network is None:
        for _ in sets:
            pass
        distances: list[float | None] = [None] * kinds
    else:
        points = look(network, sets, batch=8 * kinds).points
        seen = [Gaussian.of(points[k::kinds].clone()) for k in range(kinds)]
        distances = [frechet(seen[0], each) for each in seen]
    if len(sets.scores) < 2:
        raise SuffuseError("an upscaler is scored from two pictures on")
    if sheet is not None:
        _sheet(sets.shown, sheet)
    means = torch.stack(sets.scores).double().mean(0).tolist()  # (kinds - 1, 3)
    found = [UpscaleScore(p, s, c, distance) for (p, s, c), distance in zip(means, distances[1:])]
    mean = found[2] if drawing.draws > 1 else None
    return UpscaleScores(found[1], mean, found[0], len(sets.scores))


class _Sets:
    """The reference, bicubic, a draw and the mean of several by turns; scores are kept."""

    def __init__(
        self,
        system: SuperResolution,
        batches: Iterable[np.ndarray],
        drawing: Drawing,
        progress: Callable[[int], None],
    ):
        self.system, self.batches, self.drawing, self.progress = system, batches, drawing, progress
        self.scores: list[Tensor] = []  # (kinds - 1, 3) each: PSNR, SSIM, consistency
        self.shown: list[np.ndarray] = []

    def __iter__(self) -> Iterator[np.ndarray]:
        for batch in self.batches:
            given = torch.from_numpy(batch).permute(0, 3, 1, 2)  # (B, 3, H, W)
            made = self._made(given, len(self.scores))
            for row in range(len(given)):
                pictures = [each[row].permute(1, 2, 0).numpy() for each in (given, *made)]
                if len(self.shown) < SHOWN:
                    self.shown.append(np.concatenate([*pictures[1:], pictures[0]], 1))
                yield from pictures
            self.progress(len(self.scores))

    def _made(self, given: Tensor, first: int) -> list[Tensor]:
        """Bicubic, a draw, and the mean where there is one: levels (B, 3, H, W) uint8."""
        factor, d = self.system.factor, self.drawing
        height, width = given.shape[-2:]
        if height % factor or width % factor:
            raise SuffuseError(
                f"the upscaler takes sides that {factor} divides, not {width} x {height}"
            )
        low = shrink(to_range(given), factor)
        drawn = [
            self.system.upscale(
                low,
                [d.seed + first + row + k * 1_000_003 for row in range(len(given))],
                steps=d.steps,
                sampler=d.sampler,
            ).cpu()
            for k in range(d.draws)
        ]
        images = [self.system.enlarged(low), drawn[0]]
        images += [torch.stack(drawn).mean(0)] if d.draws > 1 else []
        made = [to_levels(image) for image in images]
        parts = []
        for levels in made:
            again = shrink(to_range(levels), factor)
            error = ((again - low) / 2).square().mean((1, 2, 3))
            parts.append(torch.stack([psnr(levels, given), ssim(levels, given), error], 1))
        self.scores += torch.stack(parts, 1).unbind()  # (B, kinds - 1, 3)
        return made


def _sheet(rows: list[np.ndarray], path: Path) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    Image.fromarray(np.concatenate(rows, 0)).save(temporary, "PNG")
    temporary.replace(path)


# ---- which schedule to draw with -----------------------------------------------------------------


class Ranked(NamedTuple):
    """A schedule and its score."""

    inference: Inference
    score: float


def candidates(
    steps: int,
    kinds: Iterable[str] = ("linear", "quad"),
    starts: Iterable[float] = (1e-6, 1e-4, 1e-2),
    ends: Iterable[float] = (0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99),
) -> list[Inference]:
    """The grid: schedules of so many steps that end in noise (sqrt(alpha_bar) below 0.1).

    Each first beta with each last one, as WaveGrad searched (2009.00713).
    """
    from suffuse.systems.sr3 import drawn_by

    grid = [Inference(steps, kind, a, b) for kind, a, b in product(kinds, starts, ends) if a < b]
    return [each for each in grid if float(drawn_by(each).alpha_bar[-1]) < 0.01]


def search(
    system: SuperResolution,
    schedules: Iterable[Inference],
    score: Callable[[SuperResolution], float],
) -> list[Ranked]:
    """The schedules by the score of what is drawn with them, best (highest) first.

    Training is told no schedule, only noise levels, so all of them are drawn with by one network
    (2104.07636, section 2.4). Keep the best with `system.drawing_by(best.inference)`.
    """
    found = [Ranked(each, score(system.drawing_by(each))) for each in schedules]
    return sorted(found, key=lambda ranked: -ranked.score)
