"""Whole pictures against diffusers, and what must hold for every sampler."""

import diffusers
import numpy as np
import pytest
import tiny
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from PIL import Image

import suffuse
from suffuse.diffusion.noise import Noise
from suffuse.diffusion.samplers import SAMPLERS, sampler_names
from suffuse.errors import SuffuseError
from suffuse.systems import generate
from suffuse.systems.latent import choose_device, choose_dtype
from suffuse.systems.request import Request

PROMPT, NEGATIVE = "a cat on a hat, oil on canvas", "blurry dog"
V = {"prediction_type": "v_prediction"}

# diffusers' class for each sampler that both have. Its DPMSolverSDEScheduler draws from a Brownian
# tree of another package; `tests/diffusion/samplers` compares that one with recorded noise.
PEERS = {
    **{name: entry.diffusers for name, entry in SAMPLERS.items() if entry.diffusers},
    "dpm++_2m_sde": "DPMSolverMultistepScheduler",
}
del PEERS["dpm++_sde"]
OPTIONS = {"dpm++_2m_sde": {"algorithm_type": "sde-dpmsolver++"}}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny pipeline that predicts eps and one that predicts v, saved."""
    root = tmp_path_factory.mktemp("models")
    for kind, change in (("eps", {}), ("v", V)):
        scheduler = diffusers.PNDMScheduler(**{**tiny.SCHEDULER, **change})
        tiny.pipeline(scheduler=scheduler).save_pretrained(root / kind)
    return root


@pytest.fixture(scope="module")
def pipes(folders):
    opened = {}
    for kind in ("eps", "v"):
        opened[kind] = diffusers.StableDiffusionPipeline.from_pretrained(
            folders / kind, safety_checker=None, local_files_only=True
        )
        opened[kind].set_progress_bar_config(disable=True)
    return opened


@pytest.fixture(scope="module")
def systems(folders):
    return {k: suffuse.load(folders / k, device="cpu", dtype="float32") for k in ("eps", "v")}


def _with(pipe, name, kind=diffusers.StableDiffusionPipeline):
    """The pipeline under another sampler, made anew: its constructor mends old configurations."""
    config = pipe.scheduler.config
    scheduler = getattr(diffusers, PEERS[name]).from_config(config, **OPTIONS.get(name, {}))
    parts = {**pipe.components, "scheduler": scheduler}
    made = kind(**parts, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


def _levels(picture):
    return np.asarray(picture).astype(int)


@pytest.mark.parametrize("kind", ["eps", "v"])
@pytest.mark.parametrize("name", PEERS)
def test_pictures_are_diffusers(name, kind, pipes, systems):
    """Twenty steps with guidance from the same seed: also the noise of the steps is the same."""
    pipe, system = pipes[kind], systems[kind]
    theirs = _with(pipe, name)(
        PROMPT,
        negative_prompt=NEGATIVE,
        num_inference_steps=20,
        guidance_scale=4.0,
        generator=[torch.Generator().manual_seed(11)],
    ).images[0]
    ours = system.generate(PROMPT, NEGATIVE, steps=20, guidance=4.0, seed=11, sampler=name)[0]
    assert np.abs(_levels(ours) - _levels(theirs)).max() <= 1
    assert _levels(theirs).std() > 10  # something is drawn


def test_initial_noise_can_be_given(pipes, systems):
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    theirs = pipes["eps"]([PROMPT] * 2, latents=noise, num_inference_steps=4).images
    ours = systems["eps"].generate(PROMPT, steps=4, n=2, noise=noise)
    for a, b in zip(ours, theirs):
        assert np.abs(_levels(a) - _levels(b)).max() <= 1
    with pytest.raises(SuffuseError, match="noise has 2 rows for n = 3"):
        systems["eps"].generate(PROMPT, steps=4, n=3, noise=noise)
    with pytest.raises(SuffuseError, match=r"not \(4, 8, 8\)"):
        systems["eps"].generate(PROMPT, steps=4, noise=torch.randn(1, 4, 9, 8))


def test_image_to_image_is_diffusers(pipes, systems):
    image = tiny_picture()
    pipe = _with(pipes["eps"], "ddim", StableDiffusionImg2ImgPipeline)
    theirs = pipe(
        PROMPT,
        image=image,
        strength=0.6,
        num_inference_steps=10,
        guidance_scale=3.0,
        generator=[torch.Generator().manual_seed(2)],
    ).images[0]
    ours = systems["eps"].generate(
        PROMPT, image=image, strength=0.6, steps=10, guidance=3.0, seed=2, sampler="ddim"
    )[0]
    assert np.abs(_levels(ours) - _levels(theirs)).max() <= 1


def tiny_picture(size=(16, 16)):
    levels = np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(levels)


@pytest.mark.parametrize("name", sampler_names())
def test_an_image_is_the_same_alone_and_among_others(name, systems):
    system = systems["eps"]
    several = system.generate(PROMPT, steps=4, seed=20, n=3, sampler=name)
    alone = [system.generate(PROMPT, steps=4, seed=20 + i, sampler=name)[0] for i in range(3)]
    assert [_same(a, b) for a, b in zip(several, alone)] == [True] * 3
    assert not _same(alone[0], alone[1])


@pytest.mark.parametrize("name", sampler_names())
def test_inpainting_leaves_other_pixels_alone(name, systems):
    image, mask = tiny_picture(), Image.new("L", (16, 16), 0)
    mask.paste(255, (8, 0, 16, 8))
    request = Request(PROMPT, image=image, mask=mask, strength=1.0, steps=4, seed=1, sampler=name)
    result = _levels(systems["eps"].generate(request)[0])
    white = np.asarray(mask) > 0
    assert np.array_equal(result[~white], _levels(image)[~white])
    assert np.abs(result[white] - _levels(image)[white]).mean() > 1


@pytest.mark.parametrize("name", sampler_names())
def test_the_known_part_is_held_in_latent_space_too(name, systems):
    """Around the repainted cells the finished latent is the picture's own, not the sampler's."""
    system = systems["eps"]
    image, mask = tiny_picture(), Image.new("L", (16, 16), 0)
    mask.paste(255, (8, 0, 16, 8))
    request = system.resolve(Request(PROMPT, image=image, mask=mask, steps=4, seed=1, sampler=name))
    *_, last = generate.steps(system.job([request]))
    noise = Noise([1], (4, 8, 8))
    with torch.no_grad():
        known = system._known([request], noise).latent
    grid = system._grid(request)
    held = grid.alpha[-1] * known + grid.sigma[-1] * noise()
    cells = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    cells[..., 0:4, 4:8] = True
    keep = ~cells.expand(1, 4, 8, 8)
    assert torch.allclose(last.x[keep], held[keep].float(), atol=1e-5)
    assert not torch.allclose(last.x[~keep], held[~keep].float(), atol=1e-2)


def test_long_prompts_are_not_cut(systems):
    long = " ".join(["a cat on a hat"] * 40)
    other = long + " dog"
    a, b = (systems["eps"].generate(p, steps=2, seed=0)[0] for p in (long, other))
    assert not _same(a, b)


def test_stream_tells_and_shows(systems):
    seen = list(systems["eps"].stream(Request(PROMPT, steps=3, n=2, seed=9)))
    assert [(p.image_index, p.i, p.steps, p.seed) for p in seen] == [
        (i, step, 3, 9 + i) for i in range(2) for step in range(3)
    ]
    assert [p.result is not None for p in seen] == [False, False, True] * 2
    assert seen[0].preview().size == (16, 16)
    # The finished picture is the last x, which in this grid still holds alpha_bar[0]'s noise.
    assert np.abs(_levels(seen[2].preview()) - _levels(seen[2].result)).mean() < 8


def test_together_is_the_same_to_rounding(systems):
    system = systems["eps"]
    one = system.generate(PROMPT, steps=4, seed=3, n=3, sampler="euler_a")
    together = system.generate(PROMPT, steps=4, seed=3, n=3, sampler="euler_a", together=3)
    for a, b in zip(one, together):
        assert np.abs(_levels(a) - _levels(b)).max() <= 1


def test_guidance_of_one_needs_no_negative(systems):
    system = systems["eps"]
    a = system.generate(PROMPT, "", steps=3, guidance=1.0, seed=0)[0]
    b = system.generate(PROMPT, NEGATIVE, steps=3, guidance=1.0, seed=0)[0]
    assert _same(a, b)


def test_a_picture_may_begin_another_without_words(systems):
    fields = {"image": Image.new("RGB", (16, 16), "red"), "steps": 2, "seed": 0}
    blank, said = (systems["eps"].generate(prompt, **fields)[0] for prompt in ("", PROMPT))
    assert not _same(blank, said)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": " \n"}, "the prompt is empty: say in a few words what to draw"),
        ({"width": 17}, "width 17 is not divisible by 2, this model's factor: try 16"),
        ({"sampler": "fast"}, "unknown sampler 'fast'; known ones are: ddpm, ddim, plms"),
        ({"steps": 2000}, "1000 steps"),
        ({"clip_skip": 9}, "clip skip 9 is out of range"),
        ({"sampler": "lms", "eta": 0.5}, "no option 'eta'"),
    ],
)
def test_refusals(fields, words, systems):
    with pytest.raises(SuffuseError, match=words):
        systems["eps"].generate(**{"prompt": PROMPT, "steps": 2, **fields})


def test_choices_of_device_and_dtype():
    assert choose_dtype("float16", torch.device("cpu")) is torch.float16
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(SuffuseError, match="unknown dtype 'half': choose auto, float32"):
        choose_dtype("half", torch.device("cpu"))
    with pytest.raises(SuffuseError, match="device 'quantum' cannot be used here"):
        choose_device("quantum")


def _same(a, b):
    return np.array_equal(np.asarray(a), np.asarray(b))
