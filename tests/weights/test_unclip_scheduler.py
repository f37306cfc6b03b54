"""Karlo's scheduler files against diffusers' UnCLIPScheduler: the same network, the same noise."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers import UnCLIPScheduler
from loops import apart, network, ours, start, twofold
from torch import Tensor

from suffuse.weights.scheduler import from_config

# What Karlo's three files say.
FILES: dict[str, dict[str, Any]] = {
    "prior": {"prediction_type": "sample", "clip_sample_range": 5.0},
    "decoder": {"variance_type": "learned_range"},
    "upsampler": {"variance_type": "fixed_small_log"},
    "unclipped": {"clip_sample": False, "num_train_timesteps": 60, "prediction_type": "sample"},
}


def theirs(config: dict[str, Any], steps: int, net: Any, wide: bool = False) -> Tensor:
    """The loop of `UnCLIPPipeline`, which tells every step where it ends.

    wide: the scheduler computes with its tables in double precision
    """
    scheduler = UnCLIPScheduler(**config)
    scheduler.set_timesteps(steps)
    if wide:
        scheduler.betas, scheduler.alphas = scheduler.betas.double(), scheduler.alphas.double()
        scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    generator = torch.Generator().manual_seed(1)
    x, times = start(), [*scheduler.timesteps, None]
    for t, then in pairwise(times):
        out = net(x, t)
        x = scheduler.step(out, t, x, prev_timestep=then, generator=generator).prev_sample
    return x


@pytest.mark.parametrize("steps", [25, 7, 2])
@pytest.mark.parametrize("name", FILES)
def test_a_file_means_what_it_means_to_diffusers(name: str, steps: int) -> None:
    sampling = from_config({"_class_name": "UnCLIPScheduler", **FILES[name]})
    net = twofold if sampling.learned_var else network
    got = ours(sampling, steps, net)
    assert apart(got, theirs(FILES[name], steps, net, wide=True)) <= 1e-5
    # In single precision 1 - (1 - 4e-8), of its first step of seven, is two thirds too large.
    assert apart(got, theirs(FILES[name], steps, net)) <= (2e-4 if steps == 7 else 1e-5)
    # A request names the sampler that the file has: the file's steps stay.
    assert sampling.using(sampling.sampler).grid == sampling.grid


def test_other_samplers_know_its_schedule() -> None:
    sampling = from_config({"_class_name": "UnCLIPScheduler", **FILES["decoder"]})
    ddim = sampling.using("ddim", "trailing")
    assert (ddim.sampler, ddim.clip, ddim.learned_var) == ("ddim", 1.0, True)
    assert torch.equal(ddim.schedule.alpha_bar, sampling.schedule.alpha_bar)
    assert torch.isfinite(ours(ddim, 5, twofold)).all()
