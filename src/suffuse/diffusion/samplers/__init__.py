"""Samplers: from noise to an image, one `Step` at a time.

A sampler takes a denoiser, a start, a grid of levels and a source of noise, and yields a `Step`
after each of its steps; what is done with them (progress, previews, masks, cancelling) is its
caller's business. `SAMPLERS` lists them by our names; what others call them is in
`diffusion.sampler_names`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from suffuse.diffusion.classifier_guidance import shifted
from suffuse.diffusion.grid import Grid, GridSpec
from suffuse.diffusion.prediction import Denoiser
from suffuse.diffusion.sampler_names import NAMES, Named, Resolved, resolve, sampler_names
from suffuse.diffusion.samplers.ancestral import ddpm
from suffuse.diffusion.samplers.common import Noise, Step
from suffuse.diffusion.samplers.ddim import ddim, ddim_reverse
from suffuse.diffusion.samplers.dpm2 import dpm2, dpm2_a
from suffuse.diffusion.samplers.dpm_solver import multistep, singlestep
from suffuse.diffusion.samplers.dpmpp import dpmpp_2s_a, dpmpp_sde
from suffuse.diffusion.samplers.euler import euler, euler_a, heun
from suffuse.diffusion.samplers.inversion import ddim_inverse
from suffuse.diffusion.samplers.lcm import lcm
from suffuse.diffusion.samplers.lms import lms
from suffuse.diffusion.samplers.plms import plms
from suffuse.diffusion.samplers.unipc import unipc
from suffuse.errors import SuffuseError

__all__ = [
    "SAMPLERS",
    "Entry",
    "Noise",
    "Resolved",
    "Step",
    "ddim_inverse",
    "ddim_reverse",
    "resolve",
    "sampler_names",
]

# Grids for a schedule of Stable Diffusion's kind where nothing else is said: those of the programs
# in which each sampler became known.
STEPS = GridSpec(offset=1, final="first")  # CompVis
SIGMAS = GridSpec(  # k-diffusion
    "linspace", rounded=False, between="log_s", terminal="clamp", start="sigma"
)
SOLVER = GridSpec("linspace", drop_cleanest=True, terminal="clamp")  # diffusers


@dataclass(frozen=True)
class Entry:
    """A sampler and what there is to know about it; call it like the function it holds."""

    run: Callable[..., Iterator[Step]]
    named: Named  # what others call it
    grid: GridSpec  # its usual one
    stochastic: bool = False  # draws noise at its steps, with the options below
    evaluations: int = 1  # of the network, at each step
    options: Mapping[str, Any] = field(default_factory=dict)  # what sets it apart from `run`
    moves_mean: bool = False  # uses a classifier's score itself; others find it in the noise

    @property
    def title(self) -> str:
        """What A1111 calls it, or would."""
        return self.named.title

    @property
    def diffusers(self) -> str:
        """The class of diffusers that does the same, "" where there is none."""
        return self.named.diffusers

    @property
    def takes(self) -> tuple[str, ...]:
        """Names of its own options."""
        return tuple(inspect.signature(self.run).parameters)[4:]

    def __call__(
        self, denoiser: Denoiser, x: Tensor, grid: Grid, noise: Noise, **options: Any
    ) -> Iterator[Step]:
        """Run it from `x (B, C, H, W)`, at level 0 of `grid`.

        Raises `SuffuseError` for an option it does not take.
        """
        for name in options:
            if name not in self.takes:
                known = ", ".join(self.takes) or "none"
                raise SuffuseError(f"sampler {self.title} has no option {name!r}; it has: {known}")
        if not self.moves_mean:
            denoiser = shifted(denoiser)
        return self.run(denoiser, x, grid, noise, **{**self.options, **options})


SAMPLERS: Mapping[str, Entry] = {
    "ddpm": Entry(ddpm, NAMES["ddpm"], GridSpec(), stochastic=True, moves_mean=True),
    "ddim": Entry(ddim, NAMES["ddim"], STEPS),
    "plms": Entry(plms, NAMES["plms"], STEPS),
    "euler": Entry(euler, NAMES["euler"], SIGMAS),
    "euler_a": Entry(euler_a, NAMES["euler_a"], SIGMAS, True),
    "heun": Entry(heun, NAMES["heun"], SIGMAS, evaluations=2),
    "lms": Entry(lms, NAMES["lms"], SIGMAS),
    "dpm2": Entry(dpm2, NAMES["dpm2"], SIGMAS, evaluations=2),
    "dpm2_a": Entry(dpm2_a, NAMES["dpm2_a"], SIGMAS, True, 2),
    "dpm++_2s_a": Entry(dpmpp_2s_a, NAMES["dpm++_2s_a"], SIGMAS, True, 2),
    "dpm++_2s": Entry(singlestep, NAMES["dpm++_2s"], SOLVER),
    "dpm++_2m": Entry(multistep, NAMES["dpm++_2m"], SOLVER),
    "dpm++_sde": Entry(dpmpp_sde, NAMES["dpm++_sde"], SIGMAS, True, 2),
    "dpm++_2m_sde": Entry(
        multistep, NAMES["dpm++_2m_sde"], SOLVER, stochastic=True, options={"eta": 1.0}
    ),
    "dpm++_3m_sde": Entry(
        multistep,
        NAMES["dpm++_3m_sde"],
        SIGMAS,
        stochastic=True,
        options={"eta": 1.0, "order": 3, "solver": "heun", "lower_order_final": False},
    ),
    "unipc": Entry(unipc, NAMES["unipc"], SOLVER),
    "lcm": Entry(lcm, NAMES["lcm"], GridSpec("distilled"), stochastic=True),
}
