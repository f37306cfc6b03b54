"""From a request to pictures: start, guidance, constraint, sampler, decoder.

Nothing here knows which paper a system is from. Image-to-image is another start (a noised picture
and the grid's tail), inpainting a constraint after each step, so any model can do both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from suffuse.diffusion.chain import respaced_grid
from suffuse.diffusion.grid import Grid, make_grid
from suffuse.diffusion.noise import Noise
from suffuse.diffusion.samplers.common import Step
from suffuse.diffusion.schedule import Discrete
from suffuse.errors import SuffuseError
from suffuse.systems import best
from suffuse.systems.request import Progress, Request
from suffuse.weights.scheduler import Sampling

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    from suffuse.systems.clip import Clip

Steps = Callable[[Tensor, Grid, Noise], Iterator[Step]]  # a sampler with its denoiser bound


@dataclass(frozen=True, eq=False)
class Known:
    """Pictures to start from, in the model's own space.

    latent: (B, C, h, w), scaled as the network sees it
    repaint: (B, 1, h, w) in {0, 1}, 1 where a picture may change; None = everywhere
    """

    latent: Tensor
    repaint: Tensor | None = None

    def moved(self, latent: Tensor) -> Known:
        """The same with these latents, where they are."""
        repaint = None if self.repaint is None else self.repaint.to(latent.device)
        return Known(latent, repaint)


@dataclass(frozen=True, eq=False)
class Job:
    """A batch of B pictures, and all that one model has to say about running it.

    requests: what each of them is asked to be, resolved, n = 1
    shape: (C, h, w) of what is denoised first
    sampler: makes the sampler with the guided denoiser bound to it
    known: the requests' pictures in the model's space, None without any; may draw noise
    picture: of a row of the batch, (1, C, h, w) as the network sees it -> picture
    steps: how many steps `sampler` takes, if more than the grid: those of a cascade
    """

    requests: Sequence[Request]
    shape: tuple[int, ...]
    device: torch.device
    grid: Grid
    sampler: Callable[[], Steps]
    known: Callable[[Noise], Known | None]
    picture: Callable[[int, Tensor], Picture]
    steps: int = 0

    def __len__(self) -> int:
        """The number of steps."""
        return self.steps or len(self.grid)


class Drawing(Protocol):
    """What a system is to `stream`; it matches by shape, nothing inherits from it."""

    def job(self, requests: Sequence[Request]) -> Job:
        """Resolved requests of one picture each, which may share a batch, as a batch."""
        ...


def stream(
    system: Drawing,
    requests: Sequence[Request],
    noise: Tensor | None = None,
    together: int = 1,
    judge: Clip | None = None,
) -> Iterator[tuple[int, Progress]]:
    """Resolved requests step by step, `together` pictures a batch: which request, and its step.

    noise: (pictures, C, h, w) standard normal to start from, in place of the seeds'
    judge: says which pictures of a request with `best_of` are kept; None = the bundled CLIP.
        The last steps of such a request come when all of it is drawn: without a result those of
        the pictures that are not kept, then the others, the nearest to the prompt first.
    Raises SuffuseError.
    """
    pictures = [(which, i) for which, request in enumerate(requests) for i in range(request.drawn)]
    if noise is not None and len(noise) != len(pictures):
        n = len(pictures)
        raise SuffuseError(f"noise has {len(noise)} rows for n = {n}: give one each")
    ended: dict[int, list[Progress]] = {}  # pictures that wait for the others of their request
    for first in range(0, len(pictures), together):
        rows = pictures[first : first + together]
        job = system.job([alone(requests[which], i) for which, i in rows])
        given = None if noise is None else noise[first : first + together]
        for step in steps(job, given):
            for row, shown in enumerate(progress(job, step)):
                which, i = rows[row]
                shown = shown._replace(image_index=i)
                if shown.result is None or requests[which].best_of is None:
                    yield which, shown
                    continue
                waiting = ended.setdefault(which, [])
                waiting.append(shown)
                if len(waiting) == requests[which].drawn:
                    for found in best.chosen(requests[which], ended.pop(which), judge, job.device):
                        yield which, found


def alone(request: Request, i: int) -> Request:
    """Picture i of a resolved request as a request of its own."""
    assert request.seed is not None
    return replace(request, n=1, best_of=None, seed=request.seed + i)


@torch.inference_mode()
def steps(job: Job, first: Tensor | None = None) -> Iterator[Step]:
    """The batch step by step; `first` (B, C, h, w) replaces the seeds' initial noise."""
    noise = Noise([request.seed or 0 for request in job.requests], job.shape, job.device)
    known = job.known(noise)
    if first is None:
        first = noise()
    elif first.shape[1:] != job.shape:
        raise SuffuseError(f"noise is {tuple(first.shape[1:])} an image, not {job.shape}")
    yield from run(job.sampler(), job.grid, noise, first.to(job.device), known)


def progress(job: Job, step: Step) -> list[Progress]:
    """What a step is to each picture of the batch."""
    last = step.i == len(job) - 1
    return [
        Progress(
            image_index=0,
            i=step.i,
            steps=len(job),
            preview=partial(job.picture, row, step.x0[row : row + 1]),
            result=finished(job, row, step.x) if last else None,
            seed=request.seed or 0,
        )
        for row, request in enumerate(job.requests)
    ]


@torch.inference_mode()
def finished(job: Job, row: int, x: Tensor) -> Picture:
    """Decodes a row of the last x; pixels that were not to be repainted come back byte for byte."""
    picture = job.picture(row, x[row : row + 1])
    image, mask = job.requests[row].pictures()
    if image is None or mask is None:
        return picture
    return paste(fit(picture, *image.size), image, mask)


def sampling_of(request: Request, sampling: Sampling) -> Sampling:
    """The scheduler file's conventions under the request's sampler and grid."""
    found = sampling.using(request.sampler, request.grid)
    if request.eta is None:
        return found
    return replace(found, options={**found.options, "eta": request.eta})


def grid_of(request: Request, sampling: Sampling, device: torch.device) -> Grid:
    """The levels of a resolved request; from a picture, their last part. Raises SuffuseError."""
    assert request.steps is not None
    if request.respacing is None:
        grid = make_grid(sampling.schedule, request.steps, sampling.grid, device)
    else:
        clamped = sampling.grid.terminal == "clamp"
        schedule = sampling.schedule.finite() if clamped else sampling.schedule
        if not isinstance(schedule, Discrete):
            raise SuffuseError("respacing is for chains of steps; this model is a rectified flow")
        grid = respaced_grid(schedule, request.respacing, device)
    return grid if request.image is None else grid.tail(request.strength)


def counted(request: Request, grid: Grid) -> Request:
    """The request with the number of steps that its respacing keeps."""
    return request if request.respacing is None else replace(request, steps=grid.whole)


def run(
    steps: Steps, grid: Grid, noise: Noise, first: Tensor, known: Known | None
) -> Iterator[Step]:
    """Denoises `first` (B, C, h, w), standard normal, along `grid`.

    With a known picture the start is that picture noised to the grid's first level (2108.01073),
    and outside `repaint` the sample is held to it after every step (2201.09865, without its
    resampling): the next step starts from what `Step.x` holds.
    """
    if known is None:
        x = first * grid.start
    else:
        x = _noised(known.latent, first, grid, 0)
    for step in steps(x, grid, noise):
        if known is not None and known.repaint is not None:
            held = _noised(known.latent, first, grid, step.i + 1)
            step.x.copy_(torch.where(known.repaint > 0, step.x, held))
            step.x0.copy_(torch.where(known.repaint > 0, step.x0, known.latent))
        yield step


def _noised(latent: Tensor, noise: Tensor, grid: Grid, i: int) -> Tensor:
    level = grid.level(i)
    return level.alpha * latent + level.sigma * noise


# ---- pictures and tensors ----------------------------------------------------------------------


def to_tensor(picture: Picture, channels: int = 3) -> Tensor:
    """A picture -> (1, 3, H, W) float32 in [-1, 1], or grey with one channel."""
    levels = np.array(picture.convert("RGB" if channels == 3 else "L"))  # (H, W, 3) or (H, W)
    image = torch.from_numpy(levels.reshape(*levels.shape[:2], channels))
    return image.permute(2, 0, 1)[None].float() / 127.5 - 1  # (1, C, H, W)


def to_picture(image: Tensor) -> Picture:
    """(3, H, W) in [-1, 1] -> RGB picture, (1, H, W) -> a grey one; to the nearest level."""
    levels = ((image.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    pixels = levels.permute(1, 2, 0).contiguous().cpu().numpy()  # (H, W, C)
    return Image.fromarray(pixels[..., 0] if len(image) == 1 else pixels)


def pixels(pictures: np.ndarray, channels: int) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in [-1, 1], or (B, 1, H, W) of whole greys."""
    if channels == 1:  # ITU-R 601, as Pillow converts
        luma = pictures.astype(np.uint32) @ np.array([299, 587, 114], np.uint32)
        pictures = ((luma + 500) // 1000).astype(np.uint8)[..., None]
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def fit(picture: Picture, width: int, height: int) -> Picture:
    """The picture at this size, by Lanczos; itself if it has it."""
    size = (width, height)
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)


def repaint_cells(mask: Picture, factor: int) -> Tensor:
    """White = repaint -> (1, 1, H/f, W/f) in {0, 1}: a cell is repainted if any pixel of it is."""
    white = torch.from_numpy(np.array(mask.convert("L")) >= 128).float()[None, None]
    return torch.nn.functional.max_pool2d(white, factor)


def given(requests: Sequence[Request], factor: int, channels: int = 3) -> Known | None:
    """The pictures that requests of one size start from, as pixels (B, C, H, W) in [-1, 1], and
    where they may change in cells of `factor` pixels; None where they name none."""
    pixels, cells = [], []
    for request in requests:
        assert request.width and request.height
        image, mask = request.pictures()
        if image is not None:
            pixels.append(to_tensor(fit(image, request.width, request.height), channels))
        if mask is not None:
            cells.append(repaint_cells(fit(mask, request.width, request.height), factor))
    return Known(torch.cat(pixels), torch.cat(cells) if cells else None) if pixels else None


def scales(requests: Sequence[Request], device: torch.device) -> Tensor:
    """Their guidance, (B, 1, 1, 1)."""
    found = torch.tensor([1.0 if r.guidance is None else r.guidance for r in requests])
    return found.to(device).view(-1, 1, 1, 1)


def paste(result: Picture, original: Picture, mask: Picture) -> Picture:
    """`result` where the mask is white, `original` elsewhere, byte for byte."""
    where = mask.convert("L").point(lambda v: 255 * (v >= 128))
    return Image.composite(result, original.convert(result.mode), where)


def natural_size(image: Picture | None, size: tuple[int, int], factor: int) -> tuple[int, int]:
    """Width and height where the request names none: the picture's own, cut to whole cells, else
    the (height, width) `size` that the model was trained at."""
    if image is None:
        return size[1], size[0]
    width, height = (max(factor, side // factor * factor) for side in image.size)
    return width, height


def check_size(width: int, height: int, factor: int) -> None:
    """Raises SuffuseError when the sides are not whole numbers of latent cells."""
    for name, side in (("width", width), ("height", height)):
        if side % factor or side < factor:
            near = max(factor, round(side / factor) * factor)
            raise SuffuseError(
                f"{name} {side} is not divisible by {factor}, this model's factor: try {near}"
            )
