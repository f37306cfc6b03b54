"""The scheduler file of a score SDE: which SDE, and how its makers sample from it.

`ScoreSdeVeScheduler` and `ScoreSdeVpScheduler` are diffusers' (0.42), with its field names and
defaults; `ScoreSdeSubVpScheduler` is made in their likeness. `predictor`, `corrector`, and `snr` of
VP and sub-VP, are fields that diffusers has no place for; it ignores them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from suffuse.diffusion.sampler_names import Corrector, Predictor
from suffuse.diffusion.samplers.predictor_corrector import check
from suffuse.diffusion.sde import VE, VP, SubVP
from suffuse.errors import SuffuseError
from suffuse.weights.fields import Json

_VE: Json = {
    "num_train_timesteps": 2000,
    "snr": 0.15,
    "sigma_min": 0.01,
    "sigma_max": 1348.0,
    "sampling_eps": 1e-5,
    "correct_steps": 1,
    "predictor": "reverse_diffusion",
    "corrector": "langevin",
}
_VP: Json = {
    "num_train_timesteps": 2000,
    "snr": 0.16,
    "beta_min": 0.1,
    "beta_max": 20.0,
    "sampling_eps": 1e-3,
    "correct_steps": 1,
    "predictor": "euler_maruyama",
    "corrector": "none",
}
CLASSES: Mapping[str, tuple[type[VE] | type[VP], Json]] = {
    "ScoreSdeVeScheduler": (VE, _VE),
    "ScoreSdeVpScheduler": (VP, _VP),
    "ScoreSdeSubVpScheduler": (SubVP, _VP),
}


@dataclass(frozen=True)
class Process:
    """A scheduler file in our terms."""

    sde: VE | VP
    steps: int
    predictor: Predictor
    corrector: Corrector
    snr: float
    corrections: int
    eps: float  # where sampling ends

    @property
    def sampler(self) -> str:
        """What a request calls its predictor and corrector."""
        return self.predictor + ("" if self.corrector == "none" else f"+{self.corrector}")


def read_process(config: Mapping[str, Any]) -> Process:
    """Read a scheduler file; keys its class does not know are ignored, as diffusers does.

    Raises `SuffuseError` for a class that is no SDE's, and for values that cannot be.
    """
    name = config.get("_class_name")
    if not isinstance(name, str) or name not in CLASSES:
        raise SuffuseError(
            f"the scheduler class {name!r} is no score SDE's; known ones are: {', '.join(CLASSES)}"
        )
    make, defaults = CLASSES[name]
    c = {key: config.get(key, value) for key, value in defaults.items()}
    for key, value in c.items():
        kinds = (int, float) if isinstance(defaults[key], float) else (type(defaults[key]),)
        if type(value) not in kinds:
            raise SuffuseError(f"the scheduler file holds an unusable value: {key} = {value!r}")
    for key in ("snr", "correct_steps"):
        if c[key] <= 0:
            raise SuffuseError(f"the scheduler file: {key} must be above 0, not {c[key]}")
    ends = {key: float(c[key]) for key in c if key.startswith(("sigma_", "beta_"))}
    process = Process(
        make(**ends),
        c["num_train_timesteps"],
        c["predictor"],
        c["corrector"],
        c["snr"],
        c["correct_steps"],
        c["sampling_eps"],
    )
    check(process.sde, process.predictor, process.corrector, process.steps, process.eps)
    return process
