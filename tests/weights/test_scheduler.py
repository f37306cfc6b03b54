"""Scheduler files against diffusers: the same file, the same noise, the same image."""

import json
from itertools import product

import diffusers
import pytest
import torch
from loops import STABLE, apart, network, ours, their_scheduler, theirs, twofold

from suffuse.diffusion.grid import NAMES
from suffuse.diffusion.samplers import SAMPLERS, sampler_names
from suffuse.errors import SuffuseError
from suffuse.weights.scheduler import from_config, to_config
from suffuse.weights.scheduler_table import CLASSES

diffusers.logging.set_verbosity_error()

EPS, V = {"prediction_type": "epsilon"}, {"prediction_type": "v_prediction"}
KARRAS = {"use_karras_sigmas": True}
EXPONENTIAL = {"use_exponential_sigmas": True}
BETA = {"use_beta_sigmas": True}
ZERO_SNR = {"rescale_betas_zero_snr": True, **V}
SIGMA_MIN = {"final_sigmas_type": "sigma_min"}
THRESHOLD = {"thresholding": True, "sample_max_value": 1.3, "dynamic_thresholding_ratio": 0.9}
CLIP = {"clip_sample": True, "clip_sample_range": 0.7}
NO_CLIP = {"clip_sample": False}
SPACINGS = [
    {"timestep_spacing": spacing, "steps_offset": offset}
    for spacing, offset in product(("leading", "trailing", "linspace"), (0, 1))
    if spacing == "leading" or offset == 0
]
PLAIN, LINSPACE, TRAILING = {}, {"timestep_spacing": "linspace"}, {"timestep_spacing": "trailing"}
ODE, SDE = {"algorithm_type": "dpmsolver", **SIGMA_MIN}, {"algorithm_type": "sde-dpmsolver++"}
THIRD, HEUN = {"solver_order": 3}, {"solver_type": "heun"}
LONG = {"lower_order_final": False}


def crossed(*axes: list[dict]) -> list[dict]:
    """Every combination of one dictionary from each list."""
    return [{k: v for part in parts for k, v in part.items()} for parts in product(*axes)]


# What to ask of each class. Names are diffusers' without "Scheduler".
PLAN = {
    "DDPM": [
        *crossed(SPACINGS, [NO_CLIP, CLIP], [PLAIN, {"variance_type": "fixed_large"}]),
        {"variance_type": "fixed_small_log"},
        {**ZERO_SNR, **NO_CLIP, **TRAILING},
        {**THRESHOLD},
    ],
    "DDIM": [
        *crossed(SPACINGS, [NO_CLIP, CLIP], [PLAIN, {"set_alpha_to_one": False}]),
        {**ZERO_SNR, **NO_CLIP, **TRAILING},
        {**THRESHOLD},
    ],
    "PNDM": crossed(
        SPACINGS,
        [{"skip_prk_steps": True}, {"skip_prk_steps": False}],
        [{"set_alpha_to_one": True}, {"set_alpha_to_one": False}],
    ),
    "LCM": [
        PLAIN,
        CLIP,
        THRESHOLD,
        {"original_inference_steps": 100, "timestep_scaling": 3.0},
        {"set_alpha_to_one": False},
        ZERO_SNR,
    ],
    "EulerDiscrete": [
        *crossed(SPACINGS, [PLAIN, KARRAS, EXPONENTIAL, BETA]),
        SIGMA_MIN,
        {**KARRAS, **SIGMA_MIN},
        {**KARRAS, "sigma_min": 0.1, "sigma_max": 8.0},
        {**V, **KARRAS, "timestep_type": "continuous"},
        {**V, "timestep_type": "continuous"},
    ],
    "EulerAncestralDiscrete": SPACINGS,
    "HeunDiscrete": [*crossed(SPACINGS, [PLAIN, KARRAS]), EXPONENTIAL, BETA, CLIP],
    "LMSDiscrete": [*SPACINGS, KARRAS, EXPONENTIAL, BETA],
    "KDPM2Discrete": [{**LINSPACE, **KARRAS}, *SPACINGS[:2]],
    "KDPM2AncestralDiscrete": [{**LINSPACE, **KARRAS}, *SPACINGS[:2]],
    "DPMSolverMultistep": [
        *crossed(SPACINGS, [PLAIN, KARRAS, EXPONENTIAL, SDE]),
        *crossed([ODE, SDE, PLAIN], [HEUN, {"solver_order": 1}]),
        *crossed([THIRD], [PLAIN, ODE, KARRAS, SIGMA_MIN, {**SIGMA_MIN, **LONG}]),
        *crossed([SIGMA_MIN], [PLAIN, LONG, {"euler_at_final": True}, KARRAS, BETA, SDE]),
        {"algorithm_type": "sde-dpmsolver", **SIGMA_MIN},
        {"algorithm_type": "sde-dpmsolver", **SIGMA_MIN, **HEUN},
        {"use_lu_lambdas": True},
        {"algorithm_type": "deis", "solver_type": "logrho", **SIGMA_MIN},
        THRESHOLD,
        {**THRESHOLD, **ODE},
        {"lambda_min_clipped": -1.5, **TRAILING},
        *crossed([{"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1}], [PLAIN]),
    ],
    "DPMSolverSinglestep": [
        *crossed([PLAIN, KARRAS, EXPONENTIAL, ODE, SDE, SIGMA_MIN], [PLAIN, THIRD, LONG]),
        *crossed([PLAIN, ODE], [{**THIRD, **HEUN}, HEUN, {"solver_order": 1}]),
        {**SDE, **HEUN},
        {**SIGMA_MIN, "lower_order_final": True},
        {"lambda_min_clipped": -1.5},
        BETA,
        THRESHOLD,
    ],
    "UniPCMultistep": [
        *crossed(SPACINGS, [PLAIN, KARRAS, EXPONENTIAL, THIRD]),
        *crossed([SIGMA_MIN], [PLAIN, LONG, THIRD, KARRAS, {"predict_x0": False}]),
        *crossed([{**SIGMA_MIN, "solver_type": "bh1"}], [PLAIN, THIRD, {"predict_x0": False}]),
        {"solver_order": 1},
        {"disable_corrector": [0, 3]},
        {"solver_type": "midpoint"},
        THRESHOLD,
        BETA,
    ],
}
CASES = [
    pytest.param({"_class_name": f"{name}Scheduler", **STABLE, **kind, **case}, id=f"{name}-{i}")
    for name, cases in PLAN.items()
    for i, (case, kind) in enumerate(product(cases, (EPS, V)))
    if case.get("prediction_type", kind["prediction_type"]) == kind["prediction_type"]
]


@pytest.mark.parametrize("config", CASES)
def test_a_file_means_what_it_means_to_diffusers(config):
    for steps in (20, 7):
        want = theirs(config, steps)
        assert apart(ours(from_config(config), steps), want) <= 1e-5


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
@pytest.mark.parametrize("name", [name for name in PLAN if not name.startswith("KDPM2")])
def test_few_steps(name, steps):
    config = {"_class_name": f"{name}Scheduler", **STABLE, "skip_prk_steps": True}
    # Heun's slope at s = 0.03, after a step from s = 14.6, divides float32 rounding by 0.03.
    tolerance = 5e-5 if (name, steps) == ("HeunDiscrete", 2) else 1e-5
    assert apart(ours(from_config(config), steps), theirs(config, steps)) <= tolerance


# Without terminal signal s starts at 4096. Euler's reference subtracts numbers of that size in
# float32 that differ by one: its own rounding is 1.3e-5.
@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("EulerDiscrete", 1e-4),
        ("EulerAncestralDiscrete", 1e-5),
        ("DPMSolverMultistep", 1e-5),
        ("UniPCMultistep", 1e-5),
    ],
)
@pytest.mark.parametrize("more", [PLAIN, KARRAS], ids=["plain", "karras"])
def test_zero_terminal_snr(name, tolerance, more):
    config = {"_class_name": f"{name}Scheduler", **STABLE, **ZERO_SNR, **TRAILING, **more}
    for steps in (20, 7):
        assert apart(ours(from_config(config), steps), theirs(config, steps)) <= tolerance


def test_learned_variance():
    config = {"_class_name": "DDPMScheduler", **STABLE, "variance_type": "learned_range", **CLIP}
    for more in SPACINGS:
        sampling = from_config({**config, **more})
        assert sampling.learned_var
        want = theirs({**config, **more}, 20, twofold)
        assert apart(ours(sampling, 20, twofold), want) <= 1e-5
    with pytest.raises(SuffuseError, match="needs a network that predicts its variance"):
        next(iter([ours(sampling.__class__(**{**vars(sampling), "learned_var": False}), 5)]))


@pytest.mark.parametrize("strength", [0.35, 0.8])
@pytest.mark.parametrize("name", [name for name in PLAN if name not in ("PNDM", "LMSDiscrete")])
def test_image_to_image(name, strength):
    """The start and the steps of `StableDiffusionImg2ImgPipeline`.

    Not compared: PNDM, which there counts its repeated step twice and so runs one step too many,
    and LMS, which takes coefficients of order 4 for its first slope.
    """
    config = {"_class_name": f"{name}Scheduler", **STABLE}
    want = theirs(config, 20, strength=strength)
    assert apart(ours(from_config(config), 20, strength=strength), want) <= 1e-5


def test_listed_betas_and_few_training_steps():
    betas = torch.linspace(0.001, 0.2, 60).tolist()
    config = {
        "_class_name": "DDIMScheduler",
        "trained_betas": betas,
        "num_train_timesteps": 60,
        "clip_sample": False,
    }
    sampling = from_config(config)
    assert sampling.schedule.T == 60
    assert apart(ours(sampling, 20), theirs(config, 20)) <= 1e-5


@pytest.mark.parametrize("name", CLASSES)
def test_files_survive_saving(name):
    """What is written means the same to us and, where its packages are there, to diffusers."""
    config = {"_class_name": name, **STABLE, **V, "timestep_spacing": "trailing", "foreign": 1}
    if name == "UnCLIPScheduler":  # which knows no other
        config["beta_schedule"] = "squaredcos_cap_v2"
    sampling = from_config(config)
    written = json.loads(json.dumps(to_config(sampling)))
    assert written["_class_name"] == name and "foreign" not in written
    again = from_config(written)
    for part in ("sampler", "grid", "options", "kind", "clip", "dynamic"):
        assert getattr(again, part) == getattr(sampling, part)
    steps = torch.arange(sampling.schedule.T)
    assert all(map(torch.equal, again.schedule.at(steps), sampling.schedule.at(steps)))
    if name != "DPMSolverSDEScheduler":  # needs another package
        known = dict(their_scheduler(written).config)
        assert {k: known[k] for k in written} == written | {"_class_name": known["_class_name"]}


def test_stable_diffusion_files_are_mended():
    """As `StableDiffusionPipeline` does with files from before it wrote these keys."""
    old = {"_class_name": "DDIMScheduler", **STABLE, "set_alpha_to_one": False}
    mended = {**old, "steps_offset": 1, "clip_sample": False}
    assert from_config(old).clip == 1.0
    sampling = from_config(old, stable_diffusion=True)
    assert (sampling.clip, sampling.grid.offset) == (None, 1)
    assert to_config(sampling)["steps_offset"] == 1
    assert apart(ours(sampling, 20), theirs(mended, 20)) <= 1e-5


# ---- another sampler for the same model ----------------------------------------------------------

SD1 = {  # Stable Diffusion 1.5's own file
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    **STABLE,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}


@pytest.mark.parametrize("name", PLAN)
def test_another_class_reads_the_same_file(name):
    cls = f"{name}Scheduler"
    their_config = {**SD1, "_class_name": cls}
    sampling = from_config(SD1).using(cls)
    assert apart(ours(sampling, 20), theirs(their_config, 20)) <= 1e-5


@pytest.mark.parametrize(
    ("asked", "cls", "more"),
    [
        ("DPM++ 2M Karras", "DPMSolverMultistepScheduler", KARRAS),
        ("DPM++ 2M SDE Karras", "DPMSolverMultistepScheduler", {**SDE, **KARRAS}),
        ("DPM++ 2M SDE Heun", "DPMSolverMultistepScheduler", {**SDE, **HEUN}),
        ("euler exponential", "EulerDiscreteScheduler", EXPONENTIAL),
        ("Heun Beta", "HeunDiscreteScheduler", BETA),
        ("unipc_bh1", "UniPCMultistepScheduler", None),
    ],
)
def test_names_with_schedules(asked, cls, more):
    sampling = from_config(SD1).using(asked)
    if more is None:  # bh1 to sigma = 0 gives NaN there
        assert torch.isfinite(ours(sampling, 20)).all()
    else:
        want = theirs({**SD1, "_class_name": cls, **more}, 20)
        assert apart(ours(sampling, 20), want) <= 1e-5


def test_using_keeps_what_was_trained_and_chains():
    file = {"_class_name": "DDIMScheduler", **STABLE, **ZERO_SNR, **TRAILING, **NO_CLIP}
    first = from_config(file)
    heun = first.using("heun")  # whose class in diffusers knows nothing of zero terminal SNR
    assert heun.kind == "v" and torch.equal(heun.schedule.alpha_bar, first.schedule.alpha_bar)
    chained = heun.using(grid="karras")
    assert (chained.sampler, chained.grid.curve) == ("heun", "karras")
    assert chained.grid == first.using("Heun Karras").grid
    assert chained.using("ddim").sampler == "ddim"
    assert first.using() == first
    straight = from_config({"_class_name": "DPMSolverMultistepScheduler", **SDE}).using("DPM++ 2M")
    assert (straight.sampler, "eta" in straight.options) == ("dpm++_2m", False)


@pytest.mark.parametrize("grid", NAMES)
@pytest.mark.parametrize("name", sampler_names())
def test_every_sampler_takes_every_grid(name, grid):
    """On 40 steps all of them come near the same image, but for the noise they draw.

    The leading spacing starts at step 976 of 1000 and so from less noise.
    """
    sampling = from_config(SD1).using(name, grid)
    assert (sampling.grid.curve or sampling.grid.spacing) == grid
    got = ours(sampling, 40)
    assert torch.isfinite(got).all()
    if not SAMPLERS[name].stochastic:
        assert apart(got, FINE) < (0.25 if grid == "leading" else 0.12)


FINE = ours(from_config(SD1).using("heun", "trailing"), 500)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "the scheduler class None is not supported; known ones are: DDPMScheduler"),
        ({"_class_name": ["x"]}, "is not supported"),
        ({"_class_name": "FlowMatchLCMScheduler"}, "FlowMatchLCMScheduler"),
        ({"_class_name": "DDIMScheduler", "beta_schedule": "odd"}, "unknown beta schedule 'odd'"),
        ({"_class_name": "DDIMScheduler", "prediction_type": "odd"}, "prediction_type='odd'"),
        ({"_class_name": "DDIMScheduler", "timestep_spacing": "odd"}, "timestep_spacing='odd'"),
        ({"_class_name": "DDIMScheduler", "num_train_timesteps": "x"}, "unusable value"),
        ({"_class_name": "UnCLIPScheduler", "beta_schedule": "linear"}, "beta_schedule='linear'"),
        ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True}, "use_flow_sigmas"),
        ({"_class_name": "EulerDiscreteScheduler", "interpolation_type": "log_linear"}, "'linear'"),
        ({"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "odd"}, "odd"),
        ({"_class_name": "DPMSolverMultistepScheduler", "final_sigmas_type": "odd"}, "zero"),
    ],
)
def test_refusals(config, words):
    with pytest.raises(SuffuseError, match=words):
        from_config(config)


def test_the_order_of_a_solver_is_small():
    config = {"_class_name": "DPMSolverMultistepScheduler", "solver_order": 4}
    with pytest.raises(SuffuseError, match="order of a DPM-Solver is 1, 2 or 3, not 4"):
        ours(from_config(config), 5, network)
