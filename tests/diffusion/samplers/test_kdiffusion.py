"""Every sampler that k-diffusion has, against what it computed on a closed-form denoiser."""

from pathlib import Path

import pytest
import torch
from closed_form import denoise
from safetensors.torch import load_file
from torch import Tensor

from suffuse.diffusion.grid import Grid
from suffuse.diffusion.prediction import Prediction, x0_to_eps
from suffuse.diffusion.samplers import SAMPLERS
from suffuse.diffusion.schedule import Discrete, Level

STORED = load_file(Path(__file__).parents[2] / "parity/kdiff/samplers/io.safetensors")

PLAN = {
    "euler": ("euler", {}),
    "euler_churn": ("euler", {"s_churn": 3.0, "s_tmin": 0.05, "s_tmax": 10.0, "s_noise": 1.003}),
    "euler_ancestral": ("euler_a", {}),
    "euler_ancestral_eta05": ("euler_a", {"eta": 0.5, "s_noise": 0.9}),
    "heun": ("heun", {}),
    "heun_churn": ("heun", {"s_churn": 3.0}),
    "dpm_2": ("dpm2", {}),
    "dpm_2_ancestral": ("dpm2_a", {}),
    "lms": ("lms", {}),
    "lms_order2": ("lms", {"order": 2}),
    "dpmpp_2s_ancestral": ("dpm++_2s_a", {}),
    "dpmpp_2s_ancestral_eta0": ("dpm++_2s_a", {"eta": 0.0}),
    "dpmpp_sde": ("dpm++_sde", {}),
    "dpmpp_sde_r03": ("dpm++_sde", {"r": 0.3}),
    "dpmpp_2m": ("dpm++_2m", {}),
    "dpmpp_2m_sde": ("dpm++_2m_sde", {}),
    "dpmpp_2m_sde_heun": ("dpm++_2m_sde", {"solver": "heun"}),
    "dpmpp_2m_sde_eta0": ("dpm++_2m_sde", {"eta": 0.0}),
    "dpmpp_3m_sde": ("dpm++_3m_sde", {}),
}


def preconditioned(x: Tensor, level: Level) -> Prediction:
    """The stored values' denoiser: a closed-form network in EDM's preconditioning, sigma_data 0.5.

    arXiv 2206.00364, table 1; the network's time is 1000 c_noise.
    """
    s = level.sigma / level.alpha
    r = (s**2 + 0.25).sqrt()
    y = x / level.alpha
    x0 = 0.25 / r**2 * y + s * 0.5 / r * denoise(y / r, 250 * s.log())
    return Prediction(x0, x0_to_eps(x, x0, level), x0)


def grid() -> Grid:
    s = STORED["in.sigmas"].double()
    angle, schedule = s.arctan(), Discrete(1 / (1 + s[:-1].flip(0) ** 2))
    return Grid(angle.cos(), angle.sin(), torch.zeros(8), 1.0, schedule)


def draws(name: str):
    # k-diffusion draws for every step of Euler; the first lies above s_tmax and has no use for it.
    unused = 1 if name == "euler_churn" else 0
    stored = iter(STORED.get(f"{name}.noise", torch.empty(0))[unused:])
    return lambda: next(stored)


@pytest.mark.parametrize("name", PLAN)
def test_trajectory(name):
    sampler, options = PLAN[name]
    levels = grid()
    x = levels.sigma[0] * STORED["in.start"]
    steps = list(SAMPLERS[sampler](preconditioned, x, levels, draws(name), **options))
    assert [step.i for step in steps] == list(range(8))
    got = torch.stack([step.x / levels.alpha[step.i + 1] for step in steps])  # (8,B,C,H,W)
    # What is stored of a step is its x after churning, which is not yielded here.
    between = [] if "churn" in name else STORED[f"{name}.trajectory"][1:]
    for theirs, ours in zip([*between, STORED[f"{name}.sample"]], got[-len(between) - 1 :]):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
