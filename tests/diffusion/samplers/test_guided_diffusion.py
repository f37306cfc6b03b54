"""Whole respaced runs of guided-diffusion: ancestral and DDIM, guided by a classifier, reversed."""

import pytest
import torch
from gd_values import GOLDEN, RUNS, SCHEDULES, ClosedForm, close, draws, log_prob

from suffuse.diffusion.chain import respaced_grid
from suffuse.diffusion.classifier_guidance import classifier
from suffuse.diffusion.guidance import clip
from suffuse.diffusion.prediction import predict
from suffuse.diffusion.samplers import SAMPLERS, ddim_reverse

PLAIN = clip(predict(ClosedForm(True, scale=1).raw, "eps", learned_var=True), rederive=True)
LEARNED = {"variance": "learned_range"}


@pytest.mark.parametrize(
    ("name", "sampler", "guided", "options"),
    [
        ("p_sample", "ddpm", False, LEARNED),
        ("p_sample_guided", "ddpm", True, LEARNED),
        ("ddim_eta0", "ddim", False, {}),
        ("ddim_eta0_guided", "ddim", True, {}),
        ("ddim_eta1", "ddim", False, {"eta": 1.0}),
    ],
)
@pytest.mark.parametrize(("key", "spec"), RUNS.items())
def test_sampling(key, spec, name, sampler, guided, options):
    denoiser = classifier(PLAIN, log_prob) if guided else PLAIN
    grid = respaced_grid(SCHEDULES["linear"], spec)
    noise = draws(key, "p_noise")
    *_, last = SAMPLERS[sampler](denoiser, GOLDEN["in.start"], grid, noise, **options)
    close(last.x, GOLDEN[f"run.{key}.{name}"])


@pytest.mark.parametrize(("key", "spec"), RUNS.items())
def test_ddim_reverse(key, spec):
    grid = respaced_grid(SCHEDULES["linear"], spec)
    steps = list(ddim_reverse(PLAIN, GOLDEN["in.x0"], grid))
    close(torch.stack([step.x for step in steps]), GOLDEN[f"run.{key}.ddim_reverse"])
    assert [step.i for step in steps] == list(range(len(grid) - 1))
