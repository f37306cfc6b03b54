"""Requests for upscalers: what is asked for, checked, and how it is run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from suffuse.diffusion.grid import Grid
from suffuse.diffusion.noise import Noise
from suffuse.diffusion.samplers.common import Step
from suffuse.errors import SuffuseError
from suffuse.systems import boxes, generate
from suffuse.systems.encoders import NO_CLASS
from suffuse.systems.generate import Job
from suffuse.systems.ink import Ink
from suffuse.systems.request import Request

if TYPE_CHECKING:
    from suffuse.systems.sr3 import SuperResolution

_OTHERS = (
    *("loras", "embeddings", "clip_skip", "mask", "negative", "guidance", "rescale"),
    "best_of",
)


def resolved(system: SuperResolution, request: Request) -> Request:
    """See `SuperResolution.resolve`."""
    name = system.info.name
    for field in _OTHERS:
        if getattr(request, field):
            raise SuffuseError(f"{field} is not for upscalers, and {name} is one")
    boxes.refuse(request.boxes, name)
    if request.image is None:
        raise SuffuseError(f"{name} is an upscaler: name the image to enlarge")
    if int(system.classes.ids([request.prompt])) == NO_CLASS and system.classes.names:
        raise SuffuseError(f"{name} enlarges by class: name one as the prompt")
    request.check()
    width, height = Ink.of(request.image).size
    if min(width, height) < system.least:
        raise SuffuseError(
            f"the picture is {width} x {height} pixels, and {name} takes "
            f"{system.least} x {system.least} or more"
        )
    width, height = system.factor * width, system.factor * height
    for field, side in (("width", width), ("height", height)):
        if getattr(request, field) not in (None, side):
            raise SuffuseError(f"this model enlarges {system.factor} times: its {field} is {side}")
    found = request.resolve(
        steps=system.steps, sampler=system.sampling.sampler, width=width, height=height
    )
    _grid(system, found)
    return replace(found, strength=1.0)  # nothing of the picture is kept as a start


def job(system: SuperResolution, requests: Sequence[Request]) -> Job:
    """How resolved requests, which enlarge pictures of one size, run as a batch."""
    one = requests[0]
    assert one.width and one.height
    inks = [Ink.of(request.image) for request in requests if request.image is not None]
    low = torch.cat([generate.to_tensor(ink.colours) for ink in inks]).to(system.device)
    sampling = generate.sampling_of(one, system.sampling)
    words = [request.prompt for request in requests]
    labels = system.classes.ids(words) if system.classes.names else None

    def steps(x: Tensor, grid: Grid, noise: Noise) -> Iterator[Step]:
        return system.sample(x, low, noise, grid, sampling, labels)

    return Job(
        requests,
        (3, one.height, one.width),
        system.device,
        _grid(system, one),
        lambda: steps,
        lambda noise: None,
        lambda row, x: inks[row].onto(generate.to_picture(x[0])),
    )


def _grid(system: SuperResolution, request: Request) -> Grid:
    assert request.steps is not None
    return system.grid(request.steps, generate.sampling_of(request, system.sampling))
