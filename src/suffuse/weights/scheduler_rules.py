"""What the keys of diffusers' schedulers mean: grids, and samplers' options.

Every class hides conventions behind its name; `scheduler_table` says which class has which of the
functions here. The facts are those of diffusers 0.42, `src/diffusers/schedulers/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from suffuse.diffusion.grid import GridSpec
from suffuse.diffusion.schedule import Flow, betas
from suffuse.errors import SuffuseError

Config = Mapping[str, Any]
Final = Literal["one", "first", "first_s"]
T = TypeVar("T")


def pick(table: Mapping[str, T], c: Config, key: str) -> T:
    """The entry of `table` for the file's `key`; `SuffuseError` naming it where there is none."""
    if c[key] not in table:
        known = ", ".join(table)
        raise SuffuseError(f"scheduler file: {key}={c[key]!r} is not supported, only {known}")
    return table[c[key]]


# ---- grids, one function a family --------------------------------------------------------------

SPACINGS = {"leading": "leading", "trailing": "trailing", "linspace": "linspace"}
_FINALS: Mapping[str, Final] = {"zero": "one", "sigma_min": "first"}
_COSINE = {"squaredcos_cap_v2": "cosine"}
_SIGMA_FINALS: Mapping[str, Final] = {"zero": "one", "sigma_min": "first_s"}
CURVE_KEYS = {
    "karras": "use_karras_sigmas",
    "exponential": "use_exponential_sigmas",
    "beta": "use_beta_sigmas",
}


def _spacing(c: Config) -> Any:
    return pick(SPACINGS, c, "timestep_spacing")


def _offset(c: Config) -> int:
    return int(c.get("steps_offset", 0))


def _curve(c: Config) -> Any:
    return next((word for word, key in CURVE_KEYS.items() if c.get(key)), None)


def steps_grid(c: Config) -> GridSpec:
    """DDPM, DDIM, PNDM: whole indices, and noise of deviation 1 to start from."""
    stride = "set_alpha_to_one" in c  # DDIM and PNDM
    return GridSpec(
        _spacing(c),
        _offset(c),
        landing="stride" if stride else "next",
        final="one" if c.get("set_alpha_to_one", True) else "first",
    )


def unclip_grid(c: Config) -> GridSpec:
    """Karlo's: whole indices from one end of its one schedule to the other."""
    table = betas(pick(_COSINE, c, "beta_schedule"), c["num_train_timesteps"], dtype=torch.float32)
    # In the weight of the last x0, beta_0 / (1 - alpha_bar_0), `scheduling_unclip.py` has two
    # numbers that should be the same; in float32 they are 0.05 % apart.
    first = table[0] / (1 - (1 - table[0]))
    return GridSpec("linspace", last_alpha=first.item())


def lcm_grid(c: Config) -> GridSpec:
    return GridSpec("distilled", taught=c["original_inference_steps"])


def sigmas_grid(c: Config, nearest_karras: bool = False) -> GridSpec:
    """The Euler family: real indices, curves between the ends of the spacing."""
    spacing, curve = _spacing(c), _curve(c)
    continuous = c.get("timestep_type") == "continuous" and c["prediction_type"] == "v_prediction"
    nearest = nearest_karras and curve == "karras"
    return GridSpec(
        spacing,
        _offset(c),
        rounded=False,
        curve=curve,
        bounds="spaced",
        min_s=c.get("sigma_min"),
        max_s=c.get("sigma_max"),
        label="quarter_log_s" if continuous else "nearest" if nearest else "index",
        final=pick(_SIGMA_FINALS, c, "final_sigmas_type") if "final_sigmas_type" in c else "one",
        terminal="clamp",
        start="unit" if spacing == "leading" else "sigma",
    )


def solver_grid(c: Config, floor_cosine: bool = False) -> GridSpec:
    """DPM-Solver and UniPC: n + 1 points without the cleanest, curves over the whole table."""
    # Lu's curve is the exponential one with other labels; a Karras curve goes before it.
    lu = bool(c.get("use_lu_lambdas")) and not c["use_karras_sigmas"]
    curve = "exponential" if lu else _curve(c)
    nearest = lu or curve == "karras"
    if floor_cosine and c["beta_schedule"] == "squaredcos_cap_v2":
        nearest = False
    return GridSpec(
        _spacing(c) if "timestep_spacing" in c else "linspace",
        _offset(c),
        drop_cleanest=True,
        min_lambda=c.get("lambda_min_clipped", float("-inf")),
        curve=curve,  # type: ignore[arg-type]
        min_s=c.get("sigma_min"),
        max_s=c.get("sigma_max"),
        label="index" if curve is None else "nearest" if nearest else "floor",
        final=pick(_FINALS, c, "final_sigmas_type"),
        terminal="clamp",
    )


def flow_of(c: Config) -> Flow:
    """The schedule of a flow-matching class."""
    return Flow(c["num_train_timesteps"], float(c["shift"]))


def flow_grid(c: Config) -> GridSpec:
    """Flow matching: times evenly spaced and then shifted, curves between their ends."""
    # The cleanest time is taken from the table, which is shifted already, and shifted once more:
    # `set_timesteps` of diffusers' `scheduling_flow_match_euler_discrete.py`.
    flow = flow_of(c)
    cleanest = float(flow.s(np.zeros(1))[0])
    return GridSpec(
        "linspace",
        rounded=False,
        lowest=flow.T * cleanest - 1,
        curve=_curve(c),
        bounds="spaced",
        tail="ceil",  # as in its `pipeline_stable_diffusion_3_img2img.py`
    )


# ---- samplers' options, one function a class that has any ---------------------------------------

_VARIANCES = {
    "fixed_small": "small",
    "fixed_small_log": "small",
    "fixed_large": "large",
    "fixed_large_log": "large",
    "learned": "learned",  # its logarithm, as in improved DDPM; diffusers takes the root of it
    "learned_range": "learned_range",
}
# Names of other solvers that diffusers takes for its own default, and so do we.
_SOLVERS = {"midpoint": "midpoint", "heun": "heun"} | dict.fromkeys(
    ("logrho", "bh1", "bh2"), "midpoint"
)
_VARIANTS = {"bh1": "bh1", "bh2": "bh2"} | dict.fromkeys(("midpoint", "heun", "logrho"), "bh2")
_ALGORITHMS: Mapping[str, dict[str, Any]] = {
    "dpmsolver++": {"form": "x0"},
    "dpmsolver": {"form": "eps"},
    "sde-dpmsolver++": {"form": "x0", "eta": 1.0},
    "sde-dpmsolver": {"form": "eps", "eta": 1.0},
    "deis": {"form": "x0"},
}


def no_options(c: Config) -> dict[str, Any]:
    return {}


def ddpm_options(c: Config) -> dict[str, Any]:
    variance = pick(_VARIANCES, c, "variance_type")
    # The posterior's own variance is 0 on the last step, so that noise there is no matter.
    to_zero = {"leading": not c["steps_offset"], "linspace": True, "trailing": False}
    last = variance != "small" and not to_zero[c["timestep_spacing"]]
    return {"variance": variance, "last_noise": last}


def unclip_options(c: Config) -> dict[str, Any]:
    return {"variance": pick(_VARIANCES, c, "variance_type")}


def pndm_options(c: Config) -> dict[str, Any]:
    return {"warmup": "euler" if c["skip_prk_steps"] else "runge_kutta"}


def dpm_options(c: Config) -> dict[str, Any]:
    return {
        "order": c["solver_order"],
        **pick(_ALGORITHMS, c, "algorithm_type"),
        "solver": pick(_SOLVERS, c, "solver_type"),
        "lower_order_final": c["lower_order_final"],
        **({"euler_at_final": c["euler_at_final"]} if "euler_at_final" in c else {}),
    }


def unipc_options(c: Config) -> dict[str, Any]:
    return {
        "order": c["solver_order"],
        "form": "x0" if c["predict_x0"] else "eps",
        "variant": pick(_VARIANTS, c, "solver_type"),
        "lower_order_final": c["lower_order_final"],
        "uncorrected": tuple(c["disable_corrector"]),
    }


def lcm_options(c: Config) -> dict[str, Any]:
    return {"timestep_scaling": c["timestep_scaling"]}
