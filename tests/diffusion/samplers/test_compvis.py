"""DDIM and PLMS against what CompVis' own samplers computed on a closed-form network."""

from pathlib import Path

import pytest
from closed_form import denoise
from safetensors.torch import load_file

from suffuse.diffusion.grid import GridSpec, make_grid
from suffuse.diffusion.prediction import diffuse, predict
from suffuse.diffusion.samplers import SAMPLERS
from suffuse.diffusion.schedule import Discrete

STORED = load_file(Path(__file__).parents[2] / "parity/ldm/samplers/io.safetensors")
SCHEDULE = Discrete(STORED["table.alphas_cumprod"])
COMPVIS = GridSpec("uniform", offset=1, final="first")

denoiser = predict(lambda x, level: denoise(x, level.label), "eps")


def draws(name: str):
    keys = sorted(key for key in STORED if key.startswith(f"out.{name}_noise."))
    stored = iter([STORED[key] for key in keys])
    return lambda: next(stored)


def run(sampler: str, n: int, noise=None, **options):
    grid = make_grid(SCHEDULE, n, COMPVIS)
    *_, last = SAMPLERS[sampler](denoiser, STORED["in.x"].clone(), grid, noise, **options)
    return last.x


def close(got, name):
    want = STORED[f"out.{name}"]
    assert (got - want).abs().max() <= 1e-5 * want.abs().max()


@pytest.mark.parametrize("n", [5, 7, 50])
@pytest.mark.parametrize("sampler", ["ddim", "plms"])
def test_deterministic(sampler, n):
    close(run(sampler, n), f"{sampler}_{n}")


def test_eta():
    close(run("ddim", 5, draws("ddim_eta1"), eta=1.0), "ddim_eta1")


def test_temperature():
    close(run("ddim", 5, draws("ddim_eta05_temp"), eta=0.5, s_noise=0.8), "ddim_eta05_temp")


def test_masked():
    """A blend written into each `Step.x` is what the next step starts from."""
    grid, noise = make_grid(SCHEDULE, 5, COMPVIS), draws("ddim_masked")
    mask, x0 = STORED["in.mask"], STORED["in.x0"]

    def blend(x, i):  # CompVis blends before each step, the level's noise drawn anew
        known = diffuse(x0, noise(), grid.level(i))
        noise()  # and draws noise for the step itself, which eta = 0 has no use for
        x.copy_(mask * known + (1 - mask) * x)

    x = STORED["in.x"].clone()
    blend(x, 0)
    for step in SAMPLERS["ddim"](denoiser, x, grid, noise):
        if step.i < 4:
            blend(step.x, step.i + 1)
    close(step.x, "ddim_masked")


def test_image_to_image():
    """`decode` runs the last three of five steps, from noise of one level above their first.

    `stochastic_encode` counts levels from 0 where `decode` counts steps from 1; diffusers and we
    noise to the level of the first step that is run.
    """
    whole = make_grid(SCHEDULE, 5, COMPVIS)
    x = diffuse(STORED["in.x0"], STORED["in.noise"], whole.level(1))
    close(x, "encoded_3")
    tail = whole.tail(0.6)
    assert (tail.whole, len(tail), tail.label.tolist()) == (5, 3, [401, 201, 1])
    *_, last = SAMPLERS["ddim"](denoiser, x, tail, None)
    close(last.x, "img2img_3")
