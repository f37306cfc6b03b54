"""The steps in which a score SDE is drawn from: what may be asked, on which grid, and the ODE's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from suffuse.diffusion.grid import Grid, GridSpec, make_grid
from suffuse.diffusion.ode import probability_flow
from suffuse.diffusion.prediction import Denoiser
from suffuse.diffusion.sampler_names import CONTINUOUS, resolve
from suffuse.diffusion.samplers.common import Step
from suffuse.diffusion.samplers.predictor_corrector import check
from suffuse.diffusion.sde_schedule import SDESchedule
from suffuse.errors import SuffuseError
from suffuse.systems.request import Request
from suffuse.weights.score_scheduler import Process

FINE = 1000  # indices, at least, between which a grid picks its times
TIMES = GridSpec("linspace", rounded=False)  # those of `predictor_corrector`


def check_sampler(p: Process, request: Request) -> None:
    """Raises SuffuseError for a sampler that this SDE does not have, and what it does not take."""
    assert request.sampler and request.steps
    found = resolve(request.sampler)
    if found.name == "pc":
        check(p.sde, n=request.steps, eps=p.eps, **found.options)
    if found.name in CONTINUOUS and (request.grid or found.grid or request.eta is not None):
        raise SuffuseError(f"sampler {request.sampler} takes neither a grid nor an eta")
    if found.name == "ode" and request.mask is not None:
        raise SuffuseError("an ODE cannot be held to a picture: take another sampler for masks")
    if found.name == "lcm":
        raise SuffuseError("lcm is for models that were distilled for it; this one is not")


def sde_grid(
    p: Process, n: int, word: str | None = None, device: torch.device | None = None
) -> Grid:
    """n steps from the prior to clean images, at even times or as a `word` of `grid.NAMES` says.

    Raises SuffuseError.
    """
    schedule = SDESchedule(p.sde, max(n, FINE), p.eps)
    grid = make_grid(schedule, n, TIMES if word is None else TIMES.named(word), device)
    return replace(grid, start=p.sde.prior_std)


def grid_of(p: Process, request: Request, device: torch.device) -> Grid:
    """The levels of a resolved request; from a picture, their last part. Raises SuffuseError."""
    assert request.steps and request.sampler
    grid = sde_grid(p, request.steps, request.grid or resolve(request.sampler).grid, device)
    return grid if request.image is None else grid.tail(request.strength)


def flow_steps(denoiser: Denoiser, x: Tensor, grid: Grid, p: Process) -> Iterator[Step]:
    """The adaptive solver from x (B, C, H, W), looked at where it passes the levels of the grid."""
    # One image at a time: the solver's steps depend on all that it solves for together.
    runs = [_passing(denoiser, row[None], grid, p) for row in x]
    for i, states in enumerate(zip(*runs, strict=True)):
        yield Step(i, *(torch.cat(parts) for parts in zip(*states)))


def _passing(
    denoiser: Denoiser, x: Tensor, grid: Grid, p: Process
) -> Iterator[tuple[Tensor, Tensor]]:
    """The first x and x0 at or below each level of the grid; the last ones are clean."""
    times = torch.linspace(1, p.eps, grid.whole, dtype=torch.float64)[grid.skipped :].tolist()
    left = [*times[1:], p.eps]
    for state in probability_flow(denoiser, x, p.sde, start=times[0], end=p.eps, denoise=True):
        while left and left[0] >= state.t:
            left.pop(0)
            yield state.x, state.x0
