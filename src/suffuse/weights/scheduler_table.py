"""The classes of diffusers' schedulers as a table: what each reads, and what it means here.

A row holds the keys that a class reads with their defaults, our sampler, and the two functions of
`scheduler_rules` that make its `GridSpec` and its sampler's options. The facts are those of
diffusers 0.42, `src/diffusers/schedulers/`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from suffuse.diffusion.grid import GridSpec
from suffuse.weights.scheduler_rules import (
    CURVE_KEYS,
    Config,
    ddpm_options,
    dpm_options,
    flow_grid,
    lcm_grid,
    lcm_options,
    no_options,
    pndm_options,
    sigmas_grid,
    solver_grid,
    steps_grid,
    unclip_grid,
    unclip_options,
    unipc_options,
)


class Row(NamedTuple):
    """A class of diffusers."""

    sampler: str  # a key of NAMES
    defaults: Config  # every key it reads
    grid: Callable[[Config], GridSpec]
    options: Callable[[Config], dict[str, Any]] = no_options


# Keys that some class reads, with the one value that is supported.
UNSUPPORTED: Config = {
    "use_flow_sigmas": False,
    "interpolation_type": "linear",
    "solver_p": None,
    "use_dynamic_shifting": False,
    "shift_terminal": None,
    "invert_sigmas": False,
    "stochastic_sampling": False,
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
_UNCLIP: Config = {
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "variance_type": "fixed_small_log",
    "clip_sample": True,
    "clip_sample_range": 1.0,
    "prediction_type": "epsilon",
}
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
_FLOW: Config = {"num_train_timesteps": 1000, "shift": 1.0}

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
        steps_grid,
        ddpm_options,
    ),
    "UnCLIPScheduler": Row("ddpm", _UNCLIP, unclip_grid, unclip_options),
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
        steps_grid,
    ),
    "PNDMScheduler": Row(
        "plms",
        {**_LEADING, "skip_prk_steps": False, "set_alpha_to_one": False},
        steps_grid,
        pndm_options,
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
        lcm_grid,
        lcm_options,
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
        sigmas_grid,
    ),
    "EulerAncestralDiscreteScheduler": Row("euler_a", {**_MODEL, **_ZERO_SNR}, sigmas_grid),
    "HeunDiscreteScheduler": Row("heun", {**_SDE, **_CLIP}, sigmas_grid),
    "LMSDiscreteScheduler": Row("lms", {**_MODEL, **_CURVES}, sigmas_grid),
    "KDPM2DiscreteScheduler": Row("dpm2", _SDE, partial(sigmas_grid, nearest_karras=True)),
    "KDPM2AncestralDiscreteScheduler": Row(
        "dpm2_a", _SDE, partial(sigmas_grid, nearest_karras=True)
    ),
    "DPMSolverSDEScheduler": Row("dpm++_sde", _SDE, sigmas_grid),
    "DPMSolverMultistepScheduler": Row(
        "dpm++_2m",
        {**_DPM, **_ZERO_SNR, "use_lu_lambdas": False, "euler_at_final": False},
        partial(solver_grid, floor_cosine=True),
        dpm_options,
    ),
    "DPMSolverSinglestepScheduler": Row(
        "dpm++_2s", {**_SINGLE, "lower_order_final": False}, solver_grid, dpm_options
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
        solver_grid,
        unipc_options,
    ),
    "FlowMatchEulerDiscreteScheduler": Row(
        "euler",
        {
            **_FLOW,
            **_CURVES,
            "use_dynamic_shifting": False,
            # What dynamic shifting would read.
            "base_shift": 0.5,
            "max_shift": 1.15,
            "base_image_seq_len": 256,
            "max_image_seq_len": 4096,
            "time_shift_type": "exponential",
            "shift_terminal": None,
            "invert_sigmas": False,
            "stochastic_sampling": False,
        },
        flow_grid,
    ),
    "FlowMatchHeunDiscreteScheduler": Row("heun", _FLOW, flow_grid),
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
