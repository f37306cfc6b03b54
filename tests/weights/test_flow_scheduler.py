"""Files of flow-matching schedulers against diffusers: the same file, noise and image."""

import pytest
import torch
from loops import apart, ours, their_scheduler, theirs

from suffuse.diffusion.grid import NAMES, make_grid
from suffuse.diffusion.samplers import SAMPLERS, sampler_names
from suffuse.errors import SuffuseError
from suffuse.weights.parts import Hints, sampling_of
from suffuse.weights.scheduler import from_config

EULER = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
HEUN = {"_class_name": "FlowMatchHeunDiscreteScheduler"}
SD3 = {**EULER, "shift": 3.0}  # Stable Diffusion 3's own file
FILES = {
    "plain": EULER,
    "sd3": SD3,
    "towards the image": {**EULER, "shift": 0.5},
    "few training steps": {**SD3, "num_train_timesteps": 60},
    "karras": {**SD3, "use_karras_sigmas": True},
    "exponential": {**EULER, "use_exponential_sigmas": True},
    "beta": {**SD3, "use_beta_sigmas": True},
    "heun": HEUN,
    "heun, shifted": {**HEUN, "shift": 3.0},
}


@pytest.mark.parametrize("config", FILES.values(), ids=FILES)
def test_the_grid_is_that_of_diffusers(config):
    sampling = from_config(config)
    for n in (1, 2, 7, 28):
        scheduler = their_scheduler(config)
        scheduler.set_timesteps(n)
        if scheduler.order == 2:  # each but the first and the last comes twice
            sigmas, labels = scheduler.sigmas[::2], scheduler.timesteps[::2]
            sigmas = torch.cat([sigmas, torch.zeros(n + 1 - len(sigmas))])
        else:
            sigmas, labels = scheduler.sigmas, scheduler.timesteps
        grid = make_grid(sampling.schedule, n, sampling.grid)
        torch.testing.assert_close(grid.sigma.float(), sigmas, rtol=2e-6, atol=0)
        torch.testing.assert_close(grid.label, labels, rtol=2e-6, atol=0)
        torch.testing.assert_close(grid.alpha + grid.sigma, torch.ones_like(grid.alpha))
        assert grid.start == 1.0


@pytest.mark.parametrize("config", FILES.values(), ids=FILES)
def test_a_flow_file_means_what_it_means_to_diffusers(config):
    for steps in (1, 2, 3, 7, 20):
        # Heun's slope at sigma = 0.001 divides float32 rounding by 0.001.
        tolerance = 5e-5 if (config, steps) == (HEUN, 2) else 1e-5
        assert apart(ours(from_config(config), steps), theirs(config, steps)) <= tolerance


@pytest.mark.parametrize("strength", [0.33, 0.35, 0.8, 1.0])
@pytest.mark.parametrize("config", [SD3, {**HEUN, "shift": 3.0}], ids=["euler", "heun"])
def test_image_to_image_from_a_flow(config, strength):
    """The start and the steps of `StableDiffusion3Img2ImgPipeline`, which rounds them up."""
    want = theirs(config, 20, strength=strength)
    assert apart(ours(from_config(config), 20, strength=strength), want) <= 1e-5


@pytest.mark.parametrize("config", [EULER, SD3, {**HEUN, "shift": 3.0}])
def test_training_meets_the_levels_of_diffusers(config):
    """As its scripts draw them: from the scheduler's tables, noisiest first there."""
    scheduler, schedule = their_scheduler(config), from_config(config).schedule
    level = schedule.at(torch.arange(1000).flip(0))
    torch.testing.assert_close(level.sigma.flatten(), scheduler.sigmas, rtol=1e-6, atol=0)
    torch.testing.assert_close(level.label, scheduler.timesteps, rtol=1e-6, atol=0)
    torch.testing.assert_close(level.alpha + level.sigma, torch.ones(1000, 1, 1, 1))
    assert (float(level.alpha[0]), float(level.sigma[0])) == (0.0, 1.0)


FINE = ours(from_config(SD3).using("heun"), 200)


@pytest.mark.parametrize("name", sampler_names())
def test_every_sampler_takes_every_grid_of_a_flow(name):
    """And on 40 steps come near the same image, but for the noise they draw."""
    for grid in NAMES:
        sampling = from_config(SD3).using(name, grid)
        assert (sampling.grid.curve or sampling.grid.spacing) == grid
        assert (sampling.kind, sampling.sampler) == ("flow", name)
        assert torch.isfinite(ours(sampling, 6)).all()
    if not SAMPLERS[name].stochastic:
        assert apart(ours(from_config(SD3).using(name), 40), FINE) < 0.05


def test_another_sampler_keeps_the_flow_and_chains():
    heun = from_config(SD3).using("heun")
    assert apart(ours(heun, 20), theirs({**HEUN, "shift": 3.0}, 20)) <= 1e-5
    chained = heun.using(grid="karras").using("DPM++ 2M")
    assert (chained.sampler, chained.grid.curve) == ("dpm++_2m", "karras")
    assert chained.using(grid="linspace").grid == heun.grid
    assert chained.schedule == heun.schedule == from_config(SD3).schedule
    assert from_config(SD3).using() == from_config(SD3)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"use_dynamic_shifting": True}, "use_dynamic_shifting=True is not supported, only False"),
        ({"shift_terminal": 0.1}, "shift_terminal=0.1 is not supported, only None"),
        ({"invert_sigmas": True}, "invert_sigmas=True"),
        ({"stochastic_sampling": True}, "stochastic_sampling=True"),
        ({"shift": 0}, "the shift of a flow must be above 0, not 0"),
        ({"shift": "wide"}, "unusable value"),
        ({"num_train_timesteps": 0}, "at least one step"),
    ],
)
def test_refusals_of_flow_files(more, words):
    with pytest.raises(SuffuseError, match=words):
        from_config({**EULER, **more})


def test_a_flow_predicts_nothing_else():
    with pytest.raises(SuffuseError, match="a rectified flow, which cannot predict 'v'"):
        sampling_of(EULER, Hints(prediction="v"), "model")
