"""The classes of diffusers' schedulers as a table: what each reads, and what it means here.

Every class hides conventions behind its name. A row holds the keys it reads with their defaults,
our sampler, and the two functions that make its `GridSpec` and its sampler's options. The facts are
those of diffusers 0.42, `src/diffusers/schedulers/`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar

from suffuse.diffusion.grid import GridSpec
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


def _steps_grid(c: Config) -> GridSpec:
    """DDPM, DDIM, PNDM: whole indices, and noise of deviation 1 to start from."""
    stride = "set_alpha_to_one" in c  # DDIM and PNDM
    return GridSpec(
        _spacing(c),
        _offset(c),
        landing="stride" if stride else "next",
        final="one" if c.get("set_alpha_to_one", True) else "first",
    )


def _lcm_grid(c: Config) -> GridSpec:
    return GridSpec("distilled", taught=c["original_inference_steps"])


def _sigmas_grid(c: Config, nearest_karras: bool = False) -> GridSpec:
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


def _solver_grid(c: Config, floor_cosine: bool = False) -> GridSpec:
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


# ---- samplers' options, one function a class that has any ---------------------------------------

_VARIANCES = {
    "fixed_small": "small",
    "fixed_small_log": "small",
    "fixed_large": "large",
    "fixed_large_log": "large",
    "learned": "learned_range",
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


def _none(c: Config) -> dict[str, Any]:
    return {}


def _ddpm_options(c: Config) -> dict[str, Any]:
    variance = pick(_VARIANCES, c, "variance_type")
    # The posterior's own variance is 0 on the last step, so that noise there is no matter.
    to_zero = {"leading": not c["steps_offset"], "linspace": True, "trailing": False}
    last = variance != "small" and not to_zero[c["timestep_spacing"]]
    return {"variance": variance, "last_noise": last}


def _pndm_options(c: Config) -> dict[str, Any]:
    return {"warmup": "euler" if c["skip_prk_steps"] else "runge_kutta"}


def _dpm_options(c: Config) -> dict[str, Any]:
    return {
        "order": c["solver_order"],
        **pick(_ALGORITHMS, c, "algorithm_type"),
        "solver": pick(_SOLVERS, c, "solver_type"),
        "lower_order_final": c["lower_order_final"],
        **({"euler_at_final": c["euler_at_final"]} if "euler_at_final" in c else {}),
    }


def _unipc_options(c: Config) -> dict[str, Any]:
    return {
        "order": c["solver_order"],
        "form": "x0" if c["predict_x0"] else "eps",
        "variant": pick(_VARIANTS, c, "solver_type"),
        "lower_order_final": c["lower_order_final"],
        "uncorrected": tuple(c["disable_corrector"]),
    }


def _lcm_options(c: Config) -> dict[str, Any]:
    return {"timestep_scaling": c["timestep_scaling"]}


# ---- the table ---------------------------------------------------------------------------------


class Row(NamedTuple):
    """A class of diffusers."""

    sampler: str  # a key of SAMPLERS
    defaults: Config  # every key it reads
    grid: Callable[[Config], GridSpec]
    options: Callable[[Config], dict[str, Any]] = _none


# Keys that some class reads, with the one value that is supported.
UNSUPPORTED: Config = {
    "use_flow_sigmas": False,
    "interpolation_type": "linear",
    "solver_p": None,
}

_MODEL: Config = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "timestep_spacing": "linspace",
    "steps_offset": 0,
}
_LEADING: Config = {**_MODEL, "timestep_spacing": "leading"}
_ZERO_SNR: Config = {"rescale_betas_zero_snr": False}
_STABLE: Config = {"beta_start": 0.00085, "beta_end": 0.012}
_CLIP: Config = {"clip_sample": False, "clip_sample_range": 1.0}
_DYNAMIC: Config = {
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
}
_CURVES: Config = dict.fromkeys(CURVE_KEYS.values(), False)
_ENDS: Config = {"sigma_min": None, "sigma_max": None}
_SOLVER: Config = {
    **_MODEL,
    **_DYNAMIC,
    **_CURVES,
    "use_flow_sigmas": False,
    "solver_order": 2,
    "solver_type": "midpoint",
    "lower_order_final": True,
    "final_sigmas_type": "zero",
}
_DPM: Config = {
    **_SOLVER,
    "algorithm_type": "dpmsolver++",
    "lambda_min_clipped": float("-inf"),
    "variance_type": None,
}
_SINGLE = {k: v for k, v in _DPM.items() if k not in ("timestep_spacing", "steps_offset")}
_SDE: Config = {**_MODEL, **_STABLE, **_CURVES}

CLASSES: Mapping[str, Row] = {
    "DDPMScheduler": Row(
        "ddpm",
        {
            **_LEADING,
            **_CLIP,
            "clip_sample": True,
            **_DYNAMIC,
            **_ZERO_SNR,
            "variance_type": "fixed_small",
        },
        _steps_grid,
        _ddpm_options,
    ),
    "DDIMScheduler": Row(
        "ddim",
        {
            **_LEADING,
            **_CLIP,
            "clip_sample": True,
            **_DYNAMIC,
            **_ZERO_SNR,
            "set_alpha_to_one": True,
        },
        _steps_grid,
    ),
    "PNDMScheduler": Row(
        "plms",
        {**_LEADING, "skip_prk_steps": False, "set_alpha_to_one": False},
        _steps_grid,
        _pndm_options,
    ),
    "LCMScheduler": Row(
        "lcm",
        {
            **_LEADING,
            **_STABLE,
            "beta_schedule": "scaled_linear",
            **_CLIP,
            **_DYNAMIC,
            **_ZERO_SNR,
            "set_alpha_to_one": True,
            "original_inference_steps": 50,
            "timestep_scaling": 10.0,
        },
        _lcm_grid,
        _lcm_options,
    ),
    "EulerDiscreteScheduler": Row(
        "euler",
        {
            **_MODEL,
            **_CURVES,
            **_ENDS,
            **_ZERO_SNR,
            "interpolation_type": "linear",
            "timestep_type": "discrete",
            "final_sigmas_type": "zero",
        },
        _sigmas_grid,
    ),
    "EulerAncestralDiscreteScheduler": Row("euler_a", {**_MODEL, **_ZERO_SNR}, _sigmas_grid),
    "HeunDiscreteScheduler": Row("heun", {**_SDE, **_CLIP}, _sigmas_grid),
    "LMSDiscreteScheduler": Row("lms", {**_MODEL, **_CURVES}, _sigmas_grid),
    "KDPM2DiscreteScheduler": Row("dpm2", _SDE, partial(_sigmas_grid, nearest_karras=True)),
    "KDPM2AncestralDiscreteScheduler": Row(
        "dpm2_a", _SDE, partial(_sigmas_grid, nearest_karras=True)
    ),
    "DPMSolverSDEScheduler": Row("dpm++_sde", _SDE, _sigmas_grid),
    "DPMSolverMultistepScheduler": Row(
        "dpm++_2m",
        {**_DPM, **_ZERO_SNR, "use_lu_lambdas": False, "euler_at_final": False},
        partial(_solver_grid, floor_cosine=True),
        _dpm_options,
    ),
    "DPMSolverSinglestepScheduler": Row(
        "dpm++_2s", {**_SINGLE, "lower_order_final": False}, _solver_grid, _dpm_options
    ),
    "UniPCMultistepScheduler": Row(
        "unipc",
        {
            **_SOLVER,
            **_ENDS,
            **_ZERO_SNR,
            "solver_type": "bh2",
            "predict_x0": True,
            "disable_corrector": [],
            "solver_p": None,
        },
        _solver_grid,
        _unipc_options,
    ),
}

# Where a sampler is not a class of its own, or a class is several samplers: the keys to set.
STAND_INS: Mapping[str, Config] = {
    "dpm++_2m": {
        "_class_name": "DPMSolverMultistepScheduler",
        "algorithm_type": "dpmsolver++",
    },
    "dpm++_2m_sde": {
        "_class_name": "DPMSolverMultistepScheduler",
        "algorithm_type": "sde-dpmsolver++",
    },
    "dpm++_3m_sde": {
        "_class_name": "DPMSolverMultistepScheduler",
        "algorithm_type": "sde-dpmsolver++",
        "solver_order": 3,
        "solver_type": "heun",
    },
    "dpm++_2s": {
        "_class_name": "DPMSolverSinglestepScheduler",
        "algorithm_type": "dpmsolver++",
    },
    "dpm++_2s_a": {"_class_name": "DPMSolverSDEScheduler"},
}
