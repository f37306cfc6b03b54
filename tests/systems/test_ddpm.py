"""DDPM folders against diffusers' own pipeline, and what only we draw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, UNet2DModel
from PIL import Image
from tiny import randomise

import suffuse
from suffuse.diffusion.cond import Cond
from suffuse.diffusion.noise import Noise
from suffuse.errors import SuffuseError
from suffuse.networks.pixel import DDPMConfig, ddpm
from suffuse.networks.unet import UNet
from suffuse.systems.ddpm import DDPM
from suffuse.weights.parts import Defaults, Info
from suffuse.weights.pixel import PixelModel
from suffuse.weights.save import save_pixel
from suffuse.weights.unet2d import open_unet2d

CONFIG = DDPMConfig(channels=(8, 16), blocks=1, attends=(False, True), heads=(1, 1), groups=4)


def model(scheduler: dict[str, Any] | None = None, **changes: Any) -> PixelModel[UNet]:
    """A network of random numbers, 8 x 8."""
    config = DDPMConfig(**{**CONFIG.__dict__, **changes})
    net = ddpm(config).eval()
    randomise(net, 5)
    scheduler = {"_class_name": "DDPMScheduler", **(scheduler or {})}
    classes = tuple("abc") if config.classes else ()
    return PixelModel(
        net, config, Info("tiny", "test"), None, scheduler, (8, 8), classes, Defaults(steps=4)
    )


@pytest.mark.parametrize(
    ("scheduler", "changes"),
    [
        ({"variance_type": "fixed_small"}, {}),
        ({"variance_type": "fixed_large", "beta_schedule": "squaredcos_cap_v2"}, {}),
        ({"variance_type": "learned_range"}, {"out_channels": 6}),
        ({"timestep_spacing": "trailing"}, {"in_channels": 1, "out_channels": 1}),
    ],
)
@torch.no_grad()
def test_diffusers_opens_what_we_save_and_draws_the_same(
    scheduler: dict[str, Any], changes: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    save_pixel(model(scheduler, **changes), folder)
    ours = suffuse.load(folder, device="cpu", dtype="float32")
    assert isinstance(ours, DDPM)
    (got,) = ours.generate(seed=3)

    pipe = DDPMPipeline.from_pretrained(folder)
    pipe.scheduler.set_timesteps(4)
    noise = Noise([3], (ours.channels, 8, 8))
    x = noise()
    draws = torch.Generator().manual_seed(3)  # of the scheduler: ours after the first draw
    torch.randn(x.shape, generator=draws)
    for t in pipe.scheduler.timesteps:
        out = pipe.unet(x, t).sample
        x = pipe.scheduler.step(out, t, x, generator=draws).prev_sample
    want = pipe.numpy_to_pil((x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy())[0]
    assert got.mode == want.mode and got.size == want.size == (8, 8)
    assert np.abs(np.asarray(got).astype(int) - np.asarray(want)).max() <= 1
    # The pipeline itself takes its first noise from the same generator.
    whole = pipe(generator=torch.Generator().manual_seed(3), num_inference_steps=4).images[0]
    assert np.abs(np.asarray(got).astype(int) - np.asarray(whole)).max() <= 1


def test_what_is_saved_is_what_is_opened(tmp_path: Path) -> None:
    made = model(classes=3, heads=(2, 4), symmetric=True, cos_first=True, shift=0.0, eps=1e-5)
    save_pixel(made, tmp_path / "model")
    again = open_unet2d(tmp_path / "model")
    assert (again.config, again.size, again.classes) == (made.config, (8, 8), ("a", "b", "c"))
    assert again.defaults == made.defaults and again.scheduler == made.scheduler
    for name, weight in made.unet.state_dict().items():
        assert torch.equal(weight, again.unet.state_dict()[name])
    assert UNet2DModel.from_pretrained(tmp_path / "model/unet").config.num_class_embeds == 3
    # Heads of different widths have no field there.
    with pytest.raises(SuffuseError, match="heads of one width, not of \\[8, 16\\]"):
        save_pixel(model(heads=(1, 2), channels=(8, 32)), tmp_path / "odd")


@torch.no_grad()
def test_guidance_is_the_papers_formula_and_zero_is_no_class() -> None:
    """(1 + w) eps(c) - w eps(no class), from two calls of the network (2207.12598, eq. 6)."""
    system = DDPM(model(classes=3))
    x, t = torch.randn(2, 3, 8, 8, generator=torch.manual_seed(0)), torch.tensor(500)

    def eps(ids: list[int]) -> torch.Tensor:
        return system.unet(x, t, system.unet.prepare(system.cond(torch.tensor(ids))))

    w, alpha_bar = 2.0, system.sampling.schedule.alpha_bar[500]
    guided = (1 + w) * eps([1, 1]) - w * eps([-1, -1])
    x0 = ((x - (1 - alpha_bar).sqrt() * guided) / alpha_bar.sqrt()).clamp(-1, 1)

    grid = system._grid(system.resolve(suffuse.Request("b", steps=2, seed=0)))
    assert grid.label.tolist() == [500, 0]
    labels = torch.tensor([1, 1]), torch.tensor([-1, -1])
    noise = Noise([0, 1], (3, 8, 8))
    step = next(system.sample(x, noise, grid, system.sampling, labels, guidance=1 + w))
    assert torch.allclose(step.x0, x0.float(), atol=1e-5)
    # Without labels the network is the one of diffusers without class_labels: nothing is added.
    no_class = system.unet(x, t, system.unet.prepare(Cond()))
    assert torch.allclose(eps([-1, -1]), no_class, atol=1e-6)
    assert not torch.allclose(eps([0, 1]), no_class, atol=1e-2)


def test_a_picture_is_the_same_alone_and_among_others() -> None:
    for system, prompt in ((DDPM(model()), ""), (DDPM(model(classes=3)), "b")):
        fields = {"guidance": 3.0} if prompt else {}
        several = system.generate(prompt, seed=5, n=3, **fields)
        (alone,) = system.generate(prompt, seed=6, **fields)
        assert np.array_equal(several[1], alone) and not np.array_equal(several[0], alone)
        together = system.generate(prompt, seed=5, n=3, together=3, **fields)
        for one, other in zip(several, together):
            assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).max() <= 1


def test_a_class_by_name_or_number_and_one_to_avoid() -> None:
    system = DDPM(model(classes=3))

    def draw(prompt: str, **fields: Any) -> np.ndarray:
        return np.asarray(system.generate(prompt, seed=1, **fields)[0])

    assert np.array_equal(draw("B"), draw("1"))
    assert not np.array_equal(draw("b"), draw("c"))
    assert not np.array_equal(draw("b", guidance=4.0), draw("b"))
    assert not np.array_equal(draw("b", guidance=4.0), draw("b", guidance=4.0, negative="a"))
    assert not np.array_equal(draw("b"), draw(""))


@pytest.mark.parametrize("sampler", ["ddim", "dpm++_2m", "euler"])
def test_samplers_by_name_and_pictures_to_start_from(sampler: str) -> None:
    system = DDPM(model({"_class_name": "DDIMScheduler"}))
    image, mask = Image.new("RGB", (8, 8), "red"), Image.new("L", (8, 8))
    mask.paste(255, (0, 0, 4, 8))
    (got,) = system.generate(sampler=sampler, grid="trailing", image=image, mask=mask, seed=0)
    pixels = np.asarray(got)
    grey = DDPM(model(in_channels=1, out_channels=1)).generate(image=image, mask=mask, seed=0)[0]
    assert (np.asarray(grey)[:, 4:] == 76).all()  # the luminance of red
    assert (pixels[:, 4:] == (255, 0, 0)).all() and not (pixels[:, :4] == (255, 0, 0)).all()


@pytest.mark.parametrize(
    ("classes", "fields", "message"),
    [
        (0, {"guidance": 3.0}, "nothing to guide to: this model has no classes"),
        (3, {"guidance": 3.0}, "nothing to guide to: name a class as the prompt"),
        (0, {"prompt": "7"}, "this model has no classes to choose '7' from"),
        (3, {"prompt": "7"}, "no class '7': its 3 classes are a, b, c, by name or by number from"),
        (3, {"prompt": "a", "negative": "x"}, "this model has no class 'x'"),
        (0, {"width": 9}, "width 9 is not divisible by 2"),
        (0, {"height": 1}, "height 1 is not divisible by 2"),
        (0, {"steps": 1001}, "schedule has 1000 steps; 1001 are too many"),
        (0, {"clip_skip": 1}, "clip_skip is for text-to-image models"),
    ],
)
def test_requests_that_cannot_be_met(classes: int, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SuffuseError, match=message):
        DDPM(model(classes=classes)).resolve(suffuse.Request(**fields))


def test_a_folder_of_2022_and_its_conventions(tmp_path: Path) -> None:
    """google/ddpm-cifar10-32: everything at the top, no pipeline, a thousand steps."""
    shape: dict[str, Any] = {
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D",) * 2,
        "up_block_types": ("UpBlock2D",) * 2,
        "norm_num_groups": 4,
        "layers_per_block": 1,
    }
    net = UNet2DModel(8, **shape)
    net.save_pretrained(tmp_path / "top")
    DDIMScheduler().save_pretrained(tmp_path / "top")
    system = suffuse.load(tmp_path / "top", "cpu", "float32")
    assert isinstance(system, DDPM)
    asked = system.resolve(suffuse.Request())
    assert (asked.steps, asked.sampler, asked.width) == (1000, "ddim", 8)
    with pytest.raises(SuffuseError, match="prediction is for text-to-image models"):
        suffuse.load(tmp_path / "top", "cpu", prediction="v")
