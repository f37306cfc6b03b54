"""Samplers: from noise to an image, one `Step` at a time.

A sampler takes a denoiser, a start, a grid of levels and a source of noise, and yields a `Step`
after each of its steps; what is done with them (progress, previews, masks, cancelling) is its
caller's business. `SAMPLERS` lists them by our names; `resolve` also knows the names that A1111,
ComfyUI, k-diffusion and diffusers use.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, get_args

from torch import Tensor

from suffuse.diffusion.classifier_guidance import shifted
from suffuse.diffusion.grid import Grid, GridSpec
from suffuse.diffusion.prediction import Denoiser
from suffuse.diffusion.samplers.ancestral import ddpm
from suffuse.diffusion.samplers.common import Noise, Step
from suffuse.diffusion.samplers.ddim import ddim, ddim_reverse
from suffuse.diffusion.samplers.dpm2 import dpm2, dpm2_a
from suffuse.diffusion.samplers.dpm_solver import multistep, singlestep
from suffuse.diffusion.samplers.dpmpp import dpmpp_2s_a, dpmpp_sde
from suffuse.diffusion.samplers.euler import euler, euler_a, heun
from suffuse.diffusion.samplers.lcm import lcm
from suffuse.diffusion.samplers.lms import lms
from suffuse.diffusion.samplers.plms import plms
from suffuse.diffusion.samplers.predictor_corrector import Corrector, Predictor
from suffuse.diffusion.samplers.unipc import unipc
from suffuse.errors import SuffuseError

__all__ = [
    "SAMPLERS",
    "Entry",
    "Noise",
    "Resolved",
    "Step",
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
    title: str  # what A1111 calls it, or would
    diffusers: str  # the class of diffusers that does the same
    grid: GridSpec  # its usual one
    stochastic: bool = False  # draws noise at its steps, with the options below
    evaluations: int = 1  # of the network, at each step
    options: Mapping[str, Any] = field(default_factory=dict)  # what sets it apart from `run`
    moves_mean: bool = False  # uses a classifier's score itself; others find it in the noise

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
    "ddpm": Entry(ddpm, "DDPM", "DDPMScheduler", GridSpec(), stochastic=True, moves_mean=True),
    "ddim": Entry(ddim, "DDIM", "DDIMScheduler", STEPS),
    "plms": Entry(plms, "PLMS", "PNDMScheduler", STEPS),
    "euler": Entry(euler, "Euler", "EulerDiscreteScheduler", SIGMAS),
    "euler_a": Entry(euler_a, "Euler a", "EulerAncestralDiscreteScheduler", SIGMAS, True),
    "heun": Entry(heun, "Heun", "HeunDiscreteScheduler", SIGMAS, evaluations=2),
    "lms": Entry(lms, "LMS", "LMSDiscreteScheduler", SIGMAS),
    "dpm2": Entry(dpm2, "DPM2", "KDPM2DiscreteScheduler", SIGMAS, evaluations=2),
    "dpm2_a": Entry(dpm2_a, "DPM2 a", "KDPM2AncestralDiscreteScheduler", SIGMAS, True, 2),
    "dpm++_2s_a": Entry(dpmpp_2s_a, "DPM++ 2S a", "", SIGMAS, True, 2),
    "dpm++_2s": Entry(singlestep, "DPM++ 2S", "DPMSolverSinglestepScheduler", SOLVER),
    "dpm++_2m": Entry(multistep, "DPM++ 2M", "DPMSolverMultistepScheduler", SOLVER),
    "dpm++_sde": Entry(dpmpp_sde, "DPM++ SDE", "DPMSolverSDEScheduler", SIGMAS, True, 2),
    "dpm++_2m_sde": Entry(
        multistep, "DPM++ 2M SDE", "", SOLVER, stochastic=True, options={"eta": 1.0}
    ),
    "dpm++_3m_sde": Entry(
        multistep,
        "DPM++ 3M SDE",
        "",
        SIGMAS,
        stochastic=True,
        options={"eta": 1.0, "order": 3, "solver": "heun", "lower_order_final": False},
    ),
    "unipc": Entry(unipc, "UniPC", "UniPCMultistepScheduler", SOLVER),
    "lcm": Entry(lcm, "LCM", "LCMScheduler", GridSpec("distilled"), stochastic=True),
}


class Resolved(NamedTuple):
    """What a sampler's name stands for."""

    name: str  # a key of SAMPLERS, or one of CONTINUOUS
    grid: str | None = None  # a word for GridSpec.named, where the name ends in a schedule
    options: Mapping[str, Any] = {}  # beyond the entry's own


def sampler_names() -> tuple[str, ...]:
    """Our names, in the order of the table."""
    return tuple(SAMPLERS)


# Names of other programs that are not the title or the class of an entry, written as `_plain` does.
ALIASES: Mapping[str, Resolved] = {
    "pndm": Resolved("plms"),
    "eulera": Resolved("euler_a"),
    "eulerancestral": Resolved("euler_a"),
    "lmsdiscrete": Resolved("lms"),
    "dpm2ancestral": Resolved("dpm2_a"),
    "dpm++2sancestral": Resolved("dpm++_2s_a"),
    "dpm++2msdeheun": Resolved("dpm++_2m_sde", options={"solver": "heun"}),
    "unipcbh2": Resolved("unipc"),
    "unipcbh1": Resolved("unipc", options={"variant": "bh1"}),
}
# What only models in continuous time can be drawn with, score SDEs: the probability-flow ODE by an
# adaptive solver, and a predictor with a corrector, as PREDICTOR or PREDICTOR+CORRECTOR.
CONTINUOUS = ("ode", "pc")
_SCHEDULES = ("karras", "polyexponential", "exponential", "beta")


def resolve(name: str) -> Resolved:
    """What `name` means: ours, A1111's, ComfyUI's, k-diffusion's or a class of diffusers.

    Case, blanks, hyphens and underscores do not matter. A schedule at the end, as in "DPM++ 2M
    Karras", comes back as the grid. Those of score SDEs are `CONTINUOUS`. Raises `SuffuseError`
    listing our names for any other.
    """
    plain, grid = _plain(name), None
    for word in _SCHEDULES:
        if plain.endswith(word) and plain != word:
            plain, grid = _plain(plain.removesuffix(word)), word
            break
    found = _known().get(plain) or _continuous(plain)
    if found is None:
        own = ", ".join(("ode", *get_args(Predictor)))
        raise SuffuseError(
            f"unknown sampler {name!r}; known ones are: {', '.join(sampler_names())} "
            f"(A1111's and diffusers' names work too); for score SDEs also {own}, the last four "
            "also with +langevin or +annealed"
        )
    return found._replace(grid=grid)


def _known() -> dict[str, Resolved]:
    known = dict(ALIASES)
    for name, entry in SAMPLERS.items():
        for spelling in (name, entry.title, entry.diffusers):
            known[_plain(spelling)] = Resolved(name)
    del known[""]
    return known


def _continuous(plain: str) -> Resolved | None:
    if plain == "ode":
        return Resolved("ode")
    predictor, _, corrector = plain.partition("+")
    predictors, correctors = ({_plain(w): w for w in get_args(k)} for k in (Predictor, Corrector))
    if predictor not in predictors or (corrector or "none") not in correctors:
        return None
    options = {"predictor": predictors[predictor], "corrector": correctors[corrector or "none"]}
    return Resolved("pc", options=options)


def _plain(name: str) -> str:
    """`name` without what spellings differ in."""
    plain = re.sub(r"[\s_\-]+", "", name.strip().lower())
    plain = plain.removeprefix("sample").removesuffix("scheduler").replace("dpmpp", "dpm++")
    return (
        plain.removeprefix("k") if plain.startswith(("keuler", "kheun", "klms", "kdpm")) else plain
    )
