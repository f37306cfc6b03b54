"""The names of samplers: ours, and what other programs call the same.

Apart from the samplers themselves, which need torch: a request can be judged, and a list of them
shown, without it. `samplers.SAMPLERS` has a sampler for every row here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

from suffuse.errors import SuffuseError


class Named(NamedTuple):
    """What others call a sampler."""

    title: str  # A1111, or what it would
    diffusers: str  # the class that does the same, "" where there is none


NAMES: Mapping[str, Named] = {
    "ddpm": Named("DDPM", "DDPMScheduler"),
    "ddim": Named("DDIM", "DDIMScheduler"),
    "plms": Named("PLMS", "PNDMScheduler"),
    "euler": Named("Euler", "EulerDiscreteScheduler"),
    "euler_a": Named("Euler a", "EulerAncestralDiscreteScheduler"),
    "heun": Named("Heun", "HeunDiscreteScheduler"),
    "lms": Named("LMS", "LMSDiscreteScheduler"),
    "dpm2": Named("DPM2", "KDPM2DiscreteScheduler"),
    "dpm2_a": Named("DPM2 a", "KDPM2AncestralDiscreteScheduler"),
    "dpm++_2s_a": Named("DPM++ 2S a", ""),
    "dpm++_2s": Named("DPM++ 2S", "DPMSolverSinglestepScheduler"),
    "dpm++_2m": Named("DPM++ 2M", "DPMSolverMultistepScheduler"),
    "dpm++_sde": Named("DPM++ SDE", "DPMSolverSDEScheduler"),
    "dpm++_2m_sde": Named("DPM++ 2M SDE", ""),
    "dpm++_3m_sde": Named("DPM++ 3M SDE", ""),
    "unipc": Named("UniPC", "UniPCMultistepScheduler"),
    "lcm": Named("LCM", "LCMScheduler"),
}


class Resolved(NamedTuple):
    """What a sampler's name stands for."""

    name: str  # a key of NAMES, or one of CONTINUOUS
    grid: str | None = None  # a word for GridSpec.named, where the name ends in a schedule
    options: Mapping[str, Any] = {}  # beyond the entry's own


def sampler_names() -> tuple[str, ...]:
    """Our names, in the order of the table."""
    return tuple(NAMES)


# Names of other programs that are not in the table above, written as `_plain` does.
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
Predictor = Literal["euler_maruyama", "reverse_diffusion", "ancestral", "probability_flow"]
Corrector = Literal["langevin", "annealed", "none"]
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
    for name, others in NAMES.items():
        for spelling in (name, *others):
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
