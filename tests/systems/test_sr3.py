"""SR3 against its public implementation, and ADM's upsampler; tiles, ink, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gd_values import ClosedForm, close
from PIL import Image
from safetensors.torch import load_file
from tiny import deviation, randomise
from torch import Tensor, nn

import suffuse
from suffuse.diffusion.cond import Cond
from suffuse.diffusion.grid import GridSpec, make_grid
from suffuse.diffusion.schedule import Level
from suffuse.diffusion.timesteps import piecewise_uniform
from suffuse.errors import SuffuseError
from suffuse.networks.pixel import ADMConfig, SR3Config, adm, sr3
from suffuse.systems.ink import Ink
from suffuse.systems.sr3 import SuperResolution, drawn_by
from suffuse.systems.tiles import Tiling
from suffuse.systems.upscalers import load_upscaler
from suffuse.weights.adm import Heads, open_adm
from suffuse.weights.adm_presets import scheduler
from suffuse.weights.parts import Defaults, Info
from suffuse.weights.pixel import Enlarging, Inference, PixelModel
from suffuse.weights.save import save_pixel

PARITY = Path(__file__).parents[1] / "parity"
GOLDEN = load_file(PARITY / "sr3/diffusion/io.safetensors")
SCHEDULER = {
    "_class_name": "DDPMScheduler", "num_train_timesteps": 10, "beta_start": 1e-4,
    "beta_end": 0.2, "variance_type": "fixed_small", "clip_sample": True,
}  # fmt: skip
CONFIG = SR3Config(
    width=8, channels=(8, 16), blocks=1, attends=(False, False), mid_attention=False, groups=4
)
LINES = {**SCHEDULER, "_class_name": "DDIMScheduler", "num_train_timesteps": 100, "beta_end": 0.1}


class Pointwise(nn.Module):
    """The stored values' network: it sees no neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(6, 3, 1), [nn.Identity()]

    def prepare(self, cond: Cond) -> Tensor:
        assert cond.concat is not None
        return cond.concat

    def forward(self, x: Tensor, label: Tensor, context: Tensor) -> Tensor:
        t = 1000 * label.view(-1, 1, 1, 1)
        return _pointwise(x + 0.2 * context, t)


def _pointwise(x: Tensor, t: Tensor) -> Tensor:
    return (0.6 + 0.4 * t / 1000) * (0.8 * x + 0.3 * (t / 170).sin()).tanh()


class Stored(Pointwise):
    """With the mirrored part that the stored values have besides."""

    def forward(self, x: Tensor, label: Tensor, context: Tensor) -> Tensor:
        return ClosedForm(False, 1)(x + 0.2 * context, 1000 * label)


class AtSize(SuperResolution):
    """The stored condition has its size already."""

    def enlarged(self, low: Tensor) -> Tensor:
        return low


def model(net: Any = None, factor: int = 2, **more: Any) -> PixelModel[Any]:
    """A network of random numbers over tiles of 8 pixels, or `net`."""
    if net is None:
        net = sr3(CONFIG).eval()
        randomise(net, 3)
    given = {"scheduler": LINES, "size": (8, 8), "defaults": Defaults(steps=3), **more}
    enlarging = given.pop("enlarging", Enlarging(factor))
    return PixelModel(net, CONFIG, Info("tiny", "test"), enlarging=enlarging, **given)


# ---- the public implementation -------------------------------------------------------------------


@pytest.mark.parametrize("power", [1, 2])
def test_losses(power: Any) -> None:
    system = AtSize(model(Stored(), scheduler=SCHEDULER))
    alpha = GOLDEN["in.levels"].view(-1, 1, 1, 1)
    level = Level(alpha.float(), (1 - alpha.square()).sqrt().float(), torch.zeros(2))
    hr, low, eps = (GOLDEN[f"in.{name}"] for name in ("hr", "condition", "noise"))
    got = system.loss(hr, low, level, eps, power)
    close(got.sum() * hr[0].numel(), GOLDEN[f"out.loss_l{power}"])


def test_every_step_of_sampling() -> None:
    system = AtSize(model(Stored(), scheduler=SCHEDULER))
    draws = iter([GOLDEN[f"in.draws.{i:02}"] for i in range(10)])
    grid = make_grid(system.schedule, 10, GridSpec())
    steps = system.sample(
        next(draws), GOLDEN["in.condition"], lambda: next(draws), grid, system.sampling
    )  # type: ignore[arg-type]
    whole = torch.cat([GOLDEN["in.condition"], *(step.x for step in steps)])
    close(whole, GOLDEN["out.sample_all"])
    assert next(draws, None) is None


def test_levels_between_steps_are_those_of_the_table() -> None:
    """Uniform between sqrt(alpha_bar) of neighbours: the ends are in the stored table."""
    table = GOLDEN["table.sqrt_alphas_cumprod_prev"]
    schedule = SuperResolution(model(scheduler=SCHEDULER)).schedule
    places = torch.tensor([0.0, 0.05, 0.1, 0.55, 0.975])
    level = piecewise_uniform(places, schedule)
    at = np.interp(places.double().numpy() * 10, np.arange(11), table.numpy())
    assert np.allclose(level.label.numpy(), at, atol=1e-6)
    assert level.alpha.shape == (5, 1, 1, 1) and level.alpha.dtype == torch.float32
    assert torch.allclose(level.alpha**2 + level.sigma**2, torch.ones(5, 1, 1, 1), atol=1e-6)


@torch.no_grad()
def test_adms_upsampler() -> None:
    io = load_file(PARITY / "gd/super_res/io.safetensors")
    opened = open_adm(PARITY / "gd/super_res/upsampler.pt", Heads(count=4))
    system = SuperResolution(replace(opened, enlarging=Enlarging(4, filter="bilinear")))
    assert system.sampling.learned_var and system.classes.names == tuple("0123456789")
    vector = system.classes.embed(io["in.y"]).vector
    context = system.unet.prepare(Cond(concat=system.enlarged(io["in.low_res"]), vector=vector))
    got = system.unet(io["in.x"], io["in.t"], context)
    assert deviation(got, io["out.out"]) < 1e-5
    # The same network through the sampler, told the timestep and the class.
    grid = make_grid(system.schedule, 2, system.sampling.grid)
    labels, draw = io["in.y"], lambda: torch.zeros_like(io["in.x"])
    first = next(system.sample(io["in.x"], io["in.low_res"], draw, grid, system.sampling, labels))  # type: ignore[arg-type]
    raw = system.unet(io["in.x"], grid.label[:1], context)[:, :3]
    ab = system.schedule.alpha_bar[int(grid.label[0])]
    x0 = ((io["in.x"] - (1 - ab).sqrt() * raw) / ab.sqrt()).clamp(-1, 1)
    assert torch.allclose(first.x0, x0.float(), atol=1e-4)


# ---- pictures of any size ------------------------------------------------------------------------


def drawn(system: SuperResolution, picture: Image.Image, **fields: Any) -> np.ndarray:
    (made,) = system.generate(image=picture, **{"seed": 3, **fields})
    return np.asarray(made).astype(int)


def noise_picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    levels = np.random.default_rng(0).integers(0, 256, (height, width, 4), np.uint8)
    return Image.fromarray(levels, "RGBA").convert(mode)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++_2m", "euler_a"])
def test_no_seam_shows(sampler: str) -> None:
    """A network without neighbours draws the same picture in tiles and whole."""
    whole = SuperResolution(model(Pointwise()), Tiling(64, 16))
    tiled = SuperResolution(model(Pointwise()), Tiling(8, 2, 3))
    picture = noise_picture(11, 7)
    one, other = (drawn(s, picture, sampler=sampler, steps=4) for s in (whole, tiled))
    assert one.shape == (14, 22, 3) and one.std() > 20
    assert np.abs(one - other).max() <= 1


def test_a_picture_of_one_tile_is_not_cut() -> None:
    one = SuperResolution(model(), Tiling(8, 4))
    picture = noise_picture(4, 3)
    whole = SuperResolution(model(), Tiling(400, 0))
    assert np.array_equal(drawn(one, picture), drawn(whole, picture))
    assert not np.array_equal(drawn(one, picture), drawn(one, picture, seed=4))


def test_tiles_with_neighbours_leave_no_edge_behind() -> None:
    """Where tiles begin, neighbouring pixels differ no more than elsewhere."""
    system = SuperResolution(model(), Tiling(16, 8))
    grey = Image.new("RGB", (40, 8), (90, 120, 200))
    made = drawn(system, grey, sampler="ddim", steps=3)[:, 8:-8]
    jumps = np.abs(np.diff(made, axis=1)).mean((0, 2))
    assert jumps.max() < 3 * np.median(jumps)


def test_a_picture_is_the_same_alone_and_among_others() -> None:
    system = SuperResolution(model())
    picture = noise_picture(9, 5)
    several = system.generate(image=picture, seed=5, n=3)
    assert np.array_equal(several[1], drawn(system, picture, seed=6))
    low = torch.rand(3, 3, 4, 4, generator=torch.manual_seed(0)) * 2 - 1
    together = system.upscale(low, [1, 2, 3])
    assert torch.allclose(together[1:2], system.upscale(low[1:2], [2]), atol=1e-5)


def test_a_residual_is_what_bicubic_lacks() -> None:
    """A silent network that predicts it as the clean image gives bicubic itself."""
    scheduler = {**LINES, "prediction_type": "sample", "timestep_spacing": "trailing"}
    system = SuperResolution(model(enlarging=Enlarging(2, residual=4.0), scheduler=scheduler))
    for weight in system.unet.head.parameters():
        nn.init.zeros_(weight)
    ramp = np.linspace(60, 190, 36 * 3).reshape(6, 6, 3).astype(np.uint8)
    picture = Image.fromarray(ramp)
    bicubic = picture.resize((12, 12), Image.Resampling.BICUBIC)
    assert np.abs(drawn(system, picture) - np.asarray(bicubic)).max() <= 1
    pictures, low = torch.rand(2, 3, 8, 8) * 2 - 1, torch.rand(2, 3, 4, 4) * 2 - 1
    base = system.enlarged(low)
    assert torch.allclose(system.whole(system.missing(pictures, base), base), pictures, atol=1e-6)
    level = piecewise_uniform(torch.tensor([0.2, 0.9]), system.schedule)
    loss = system.loss(pictures, low, level, torch.randn(2, 3, 8, 8), 2)
    assert torch.allclose(loss, 16 * (pictures - base).square().mean((1, 2, 3)))


def test_another_schedule_to_draw_with() -> None:
    inference = Inference(5, "linear", 1e-3, 0.7)
    system = SuperResolution(model(enlarging=Enlarging(2, inference=inference)))
    assert system.steps == 5
    levels = system.grid(5, system.sampling)
    want = torch.cumprod(1 - torch.linspace(1e-3, 0.7, 5, dtype=torch.float64), 0).flip(0)
    assert torch.allclose(levels.alpha[:-1] ** 2, want) and float(levels.sigma[-1]) == 0
    others = system.grid(4, system.sampling)  # of the training schedule
    assert float(others.alpha[0] ** 2) == pytest.approx(
        float(system.schedule.alpha_bar[int(others.label[0])])
    )
    assert drawn(system, noise_picture(4, 4)).shape == (8, 8, 3)
    assert torch.equal(drawn_by(inference).alpha_bar, want.flip(0))


# ---- what a network does not see -----------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "I;16"])
def test_grey_stays_grey_and_transparent_transparent(mode: str) -> None:
    given = Image.new("RGBA", (6, 4), (200, 40, 90, 255))
    given.paste((200, 40, 90, 100), (0, 0, 3, 4))
    if mode == "I;16":
        picture = Image.fromarray(np.full((4, 6), 200 * 257, np.uint16))
    else:
        picture = given.convert(mode)
    ink = Ink.of(picture)
    assert ink.colours.mode == "RGB" and ink.size == (6, 4)
    made = ink.onto(ink.colours.resize((12, 8), Image.Resampling.NEAREST))
    assert made.size == (12, 8)
    clear = mode in ("LA", "RGBA")
    assert made.mode == {"1": "L", "I;16": "L", "P": "RGB"}.get(mode, mode)
    if clear:  # the colour is that of the picture, not mixed with the white behind it
        assert 90 < made.getpixel((1, 4))[-1] < 110 and made.getpixel((10, 4))[-1] == 255
        colour = np.array(picture.convert("RGBA").getpixel((0, 0))[:3])
        assert np.abs(np.array(made.convert("RGBA").getpixel((1, 4))[:3]) - colour).max() <= 6
    if mode == "I;16":
        assert made.getpixel((0, 0)) == 200


# ---- opening, and what is refused ----------------------------------------------------------------


def test_what_is_saved_is_what_is_opened(tmp_path: Path) -> None:
    inference = Inference(3, "quad", 1e-4, 0.3)
    made = model(enlarging=Enlarging(2, residual=3.0, inference=inference))
    save_pixel(made, tmp_path / "model")
    system = suffuse.load(tmp_path / "model", device="cpu", dtype="float32")
    assert isinstance(system, SuperResolution)
    assert system.enlarging == made.enlarging and system.model.config == CONFIG
    picture = noise_picture(7, 5)
    got = drawn(system, picture) - drawn(SuperResolution(made), picture)
    assert np.abs(got).max() <= 1
    (tmp_path / "model/suffuse.json").write_text('{"upscale": {"factor": 1}}')
    with pytest.raises(SuffuseError, match=r"upscale: .*at least 2, not 1"):
        load_upscaler(tmp_path / "model")
    (tmp_path / "model/suffuse.json").write_text("{}")
    with pytest.raises(SuffuseError, match="is no upscaler"):
        load_upscaler(tmp_path / "model")
    assert load_upscaler(tmp_path / "model", factor=4).factor == 4


def test_files_of_the_public_implementations(tmp_path: Path) -> None:
    with torch.device("meta"):
        net = sr3(SR3Config(width=32, channels=(32, 32), blocks=1, attends=(False, True)))
    net = net.to_empty(device="cpu")
    randomise(net, 1)
    from suffuse.weights.mapping import export
    from suffuse.weights.maps.sr3 import sr3_unet
    from suffuse.weights.sr3 import INSIDE

    config = SR3Config(width=32, channels=(32, 32), blocks=1, attends=(False, True))
    weights = export(net, sr3_unet(config), torch.float32)
    torch.save({INSIDE + name: weight for name, weight in weights.items()}, tmp_path / "gen.pth")
    system = load_upscaler(tmp_path / "gen.pth")
    assert (system.factor, system.cut.side, system.schedule.T) == (8, 128, 2000)
    assert load_upscaler(tmp_path / "gen.pth", factor=4).factor == 4
    with pytest.raises(SuffuseError, match=r"has the shapes of no published model"):
        load_upscaler(PARITY / "gd/unet/64x64_diffusion.pt")
    with pytest.raises(SuffuseError, match="is no upscaler, neither SR3's nor"):
        load_upscaler(PARITY / "gd/classifier/classifier_adaptive.pt")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": None}, "is an upscaler: name the image to enlarge"),
        ({"prompt": "dog"}, "no classes to choose 'dog' from"),
        ({"width": 9}, "this model enlarges 2 times: its width is 12"),
        ({"guidance": 3.0}, "guidance is not for upscalers"),
        ({"steps": 101}, "schedule has 100 steps; 101 are too many"),
        ({"sampler": "nonsense"}, "unknown sampler 'nonsense'"),
    ],
)
def test_requests_that_cannot_be_met(fields: dict[str, Any], message: str) -> None:
    system = SuperResolution(model())
    with pytest.raises(SuffuseError, match=message):
        system.resolve(suffuse.Request(**{"image": noise_picture(6, 4), **fields}))


def test_too_small_and_without_its_class() -> None:
    config = ADMConfig(
        in_channels=6, width=32, channels=(32,) * 4, blocks=1, attends=(False,) * 4,
        heads=(1,) * 4, classes=3,
    )  # fmt: skip
    net = adm(config)
    upscaler = PixelModel(
        net, config, Info("up", "test"), scheduler=scheduler(None, learned=True),
        size=(32, 32), enlarging=Enlarging(4, filter="bilinear"),
    )  # fmt: skip
    system = SuperResolution(upscaler)
    assert system.least == 2
    with pytest.raises(SuffuseError, match=r"1 x 5 pixels, and up takes 2 x 2 or more"):
        system.resolve(suffuse.Request("1", image=noise_picture(1, 5)))
    with pytest.raises(SuffuseError, match="enlarges by class: name one as the prompt"):
        system.resolve(suffuse.Request(image=noise_picture(4, 4)))
    timed = Enlarging(4, inference=Inference())
    with pytest.raises(SuffuseError, match="has no inference schedule of its own"):
        SuperResolution(replace(upscaler, enlarging=timed))
    with pytest.raises(SuffuseError, match=r"one takes 6 channels, .* not 3"):
        SuperResolution(replace(upscaler, config=replace(config, in_channels=3)))
