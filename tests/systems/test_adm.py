"""ADM as a system: guided-diffusion's own numbers, its files, folders of ours, intervals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gd_values import GOLDEN, RUNS, ClosedForm, close, draws, log_prob
from tiny import randomise
from torch import nn

import suffuse
from suffuse.diffusion.classifier_guidance import classifier
from suffuse.errors import SuffuseError
from suffuse.networks.pixel import ADMConfig, adm
from suffuse.networks.unet import UNet
from suffuse.systems.adm import open_adm_model
from suffuse.systems.ddpm import DDPM
from suffuse.systems.registry import draws_unasked
from suffuse.weights import adm_presets
from suffuse.weights.adm import Heads, open_adm
from suffuse.weights.adm_presets import PUBLISHED, Published, scheduler
from suffuse.weights.mapping import export
from suffuse.weights.maps.adm import adm_unet
from suffuse.weights.parts import Defaults, Info
from suffuse.weights.pixel import PixelModel
from suffuse.weights.save import save_pixel

FILES = Path(__file__).parents[1] / "parity" / "gd"
CONFIG = ADMConfig(
    width=32, channels=(32, 64), blocks=1, attends=(False, True), heads=(1, 2), classes=3
)
LEARNED = {
    "_class_name": "DDPMScheduler",
    "num_train_timesteps": 100,
    "beta_start": 1e-3,
    "beta_end": 0.2,
    "variance_type": "learned_range",
}


def model(**changes: Any) -> PixelModel[UNet]:
    """An ADM of random numbers, 8 x 8."""
    config = replace(CONFIG, **changes)
    net = adm(config).eval()
    randomise(net, 5)
    classes = tuple("abc") if config.classes else ()
    return PixelModel(
        net, config, Info("tiny", "test"), None, LEARNED, (8, 8), classes, Defaults(steps=4)
    )


class Closed(ClosedForm):
    """The network behind the stored values; its stem only says where it computes."""

    def __init__(self) -> None:
        super().__init__(True, scale=1)
        self.stem = nn.Conv2d(1, 1, 1)


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize(("key", "spec"), RUNS.items())
def test_whole_runs_are_guided_diffusions(key: str, spec: str, guided: bool) -> None:
    """p_sample and ddim_sample, respaced, alone and with a classifier."""
    unet: Any = Closed()
    made = replace(model(classes=0), size=(4, 4))
    asks, system = DDPM(made), DDPM(replace(made, unet=unet))
    steer = (lambda d: classifier(d, log_prob)) if guided else None
    none = (torch.tensor([-1, -1]),) * 2
    for sampler, name in (("ddpm", "p_sample"), ("ddim", "ddim_eta0")):
        asked = asks.resolve(suffuse.Request(sampler=sampler, seed=0, respacing=spec))
        assert asked.steps == {"20": 20, "ddim10": 10, "5,3,2": 10}[spec]
        # There the noise follows the clipped image; diffusers, whose rules ours are, keeps it.
        sampling = replace(system._sampling(asked), rederive=True)
        noise: Any = draws(key, "p_noise")
        run = system.sample(
            GOLDEN["in.start"], noise, system._grid(asked), sampling, none, steer=steer
        )
        *_, last = run
        close(last.x, GOLDEN[f"run.{key}.{name}{'_guided' if guided else ''}"])


@torch.no_grad()
def test_means_and_variances_are_guided_diffusions() -> None:
    unet: Any = Closed()
    system = DDPM(replace(model(), unet=unet, classes=()))
    reverse = system.reverse(limit=1.0)
    x, t = GOLDEN["q_linear.sample"], GOLDEN["in.t"]
    p, x0 = reverse(ClosedForm(True)(x, t), x, t)
    for name, got in (("mean", p.mean), ("log_variance", p.log_var), ("pred_xstart", x0)):
        close(got, GOLDEN[f"p.EPSILON.LEARNED_RANGE.{name}"])


def test_files_open_and_draw() -> None:
    file = FILES / "unet" / "64x64_diffusion.pt"
    system = suffuse.load(file, "cpu", "float32", heads=Heads(width=16, new_order=True))
    assert isinstance(system, DDPM) and system.model.classes == tuple(map(str, range(10)))
    assert system.reverse().variance == "learned_range" and system.chain.T == 1000
    (picture,) = system.generate("7", steps=2, width=8, height=8, seed=0)
    assert picture.size == (8, 8)
    assert system.resolve(suffuse.Request(width=8, height=8)).steps == 250
    with pytest.raises(SuffuseError, match="does not say its size: give width and height"):
        system.generate("7")
    assert draws_unasked(str(file)) and not draws_unasked(None)
    with pytest.raises(SuffuseError, match=r"no published model.*give their count or their width"):
        suffuse.load(file, "cpu", "float32")
    with pytest.raises(SuffuseError, match=r"told as Heads\(count=…\), not 4"):
        suffuse.load(file, "cpu", "float32", heads=4)
    with pytest.raises(SuffuseError, match=r"upsampler\.pt: enlarges pictures.* suffuse upscale"):
        suffuse.load(FILES / "super_res/upsampler.pt", "cpu", "float32", heads=Heads(count=4))
    with pytest.raises(SuffuseError, match=r"adaptive\.pt: is a classifier and draws nothing"):
        suffuse.load(FILES / "classifier/classifier_adaptive.pt", "cpu", "float32")


def test_a_published_file_has_the_schedule_of_its_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Improved DDPM's of 4000 cosine steps, whose network sees t / 4."""
    row = Published(("tiny",), CONFIG, 8, schedule="cosine", steps=4000, rescaled=True)
    monkeypatch.setattr(adm_presets, "PUBLISHED", (row,))
    made = model()
    torch.save(export(made.unet, adm_unet(CONFIG), torch.float32), tmp_path / "tiny.pt")
    opened = open_adm(tmp_path / "tiny.pt")
    assert (opened.published, opened.size) == ("tiny", (8, 8))
    x, t = torch.randn(2, 3, 8, 8, generator=torch.manual_seed(0)), torch.tensor([3600, 40])
    with torch.no_grad():
        vector = torch.eye(3)[:2]
        context = made.unet.prepare(DDPM(made).cond(torch.tensor([0, 1])))
        assert torch.equal(context.vector, made.unet.vector(vector))  # type: ignore[misc, arg-type]
        assert torch.allclose(opened.unet(x, t, context), made.unet(x, t / 4, context), atol=1e-5)
    system = DDPM(opened)
    assert system.chain.T == 4000
    # guided-diffusion's `betas_for_alpha_bar`, in float64.
    times = np.arange(4001) / 4000
    curve = np.cos((times + 0.008) / 1.008 * np.pi / 2) ** 2
    betas = np.minimum(1 - curve[1:] / curve[:-1], 0.999)
    assert np.allclose(system.chain.schedule.alpha_bar, np.cumprod(1 - betas), atol=2e-5)
    asked = system.resolve(suffuse.Request(respacing="250", seed=0))
    assert system._grid(asked).label[[0, -1]].tolist() == [3999, 0] and asked.steps == 250
    # What was opened can be saved and is the same again.
    save_pixel(opened, tmp_path / "folder")
    again = suffuse.load(tmp_path / "folder", "cpu", "float32")
    pictures = [s.generate("1", seed=3, steps=2)[0] for s in (system, again)]  # type: ignore[union-attr]
    assert np.abs(np.asarray(pictures[0]).astype(int) - np.asarray(pictures[1])).max() <= 1


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row.names[0])
def test_every_published_schedule_is_a_chain(row: Published) -> None:
    system = DDPM(replace(model(), scheduler=scheduler(row, True)))
    betas = system.chain.schedule.betas
    assert len(betas) == row.steps and system.reverse().learned
    if row.schedule == "linear":  # DDPM's, stretched
        ends = torch.tensor([1e-4, 0.02], dtype=torch.float64) * 1000 / row.steps
        assert torch.allclose(betas[[0, -1]], ends, rtol=2e-3)
    assert not DDPM(replace(model(), scheduler=scheduler(row, False))).reverse().learned


def test_folders_of_ours(tmp_path: Path) -> None:
    made = model()
    save_pixel(made, tmp_path / "adm")
    system = suffuse.load(tmp_path / "adm", "cpu", "float32")
    assert isinstance(system, DDPM)
    want = DDPM(made).generate("b", seed=1)[0]
    got = system.generate("b", seed=1)[0]
    assert np.abs(np.asarray(got).astype(int) - np.asarray(want)).max() <= 1
    assert draws_unasked(str(tmp_path / "adm"))
    # One that enlarges is for another command.
    save_pixel(model(in_channels=6), tmp_path / "upsampler")
    with pytest.raises(SuffuseError, match="enlarges pictures and draws none: use suffuse upscale"):
        suffuse.load(tmp_path / "upsampler", "cpu", "float32")
    with pytest.raises(SuffuseError, match="prediction is for text-to-image models"):
        suffuse.load(tmp_path / "adm", "cpu", prediction="v")
    (tmp_path / "adm/suffuse.json").write_text('{"classes": ["a"]}')
    with pytest.raises(SuffuseError, match="names 1 classes, the network has 3"):
        open_adm_model(tmp_path / "adm")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"respacing": "often"}, "cannot read the respacing 'often'; it may be a number of steps"),
        ({"respacing": "ddim30"}, "no whole stride keeps 30 of 100 steps"),
        ({"respacing": "101"}, "a respacing cannot keep 101 of 100 steps"),
        ({"respacing": "5", "grid": "leading"}, "respacing and grid both say which steps to take"),
        ({"steps": 101}, "schedule has 100 steps; 101 are too many"),
        ({"prompt": "3"}, "this model has no class '3': its 3 classes are a, b, c"),
    ],
)
def test_requests_that_cannot_be_met(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SuffuseError, match=message):
        DDPM(model()).resolve(suffuse.Request(**fields))


def test_a_schedule_that_is_no_chain_is_refused() -> None:
    for told, message in (
        ({"beta_end": 1.5}, "betas must satisfy 0 < start <= end < 1, not start=0.001, end=1.5"),
        ({"beta_start": -0.1}, "betas must satisfy 0 < start"),
        ({"trained_betas": [0.1, 1.2]}, "alpha_bar must lie in .* check the betas"),
    ):
        with pytest.raises(SuffuseError, match=message):
            DDPM(replace(model(), scheduler={**LEARNED, **told})).resolve(suffuse.Request())


def test_guidance_in_an_interval_alone() -> None:
    """Outside it the network is asked once, and what it says is taken as it is."""
    system, rows = DDPM(model()), list[int]()
    system.unet.head.register_forward_hook(lambda net, args, out: rows.append(len(out)))

    def draw(**fields: Any) -> np.ndarray:
        rows.clear()
        return np.asarray(system.generate("b", seed=1, **fields)[0])

    plain, guided = draw(guidance=1.0), draw(guidance=4.0)
    assert not np.array_equal(plain, guided) and rows == [2, 2, 2, 2]
    assert np.array_equal(draw(guidance=4.0, guidance_interval=(0, 1e9)), guided)
    grid = system._grid(system.resolve(suffuse.Request("b", seed=1)))
    s = (grid.sigma / grid.alpha).tolist()
    assert np.array_equal(draw(guidance=4.0, guidance_interval=(s[0], 2 * s[0])), plain)
    half = draw(guidance=4.0, guidance_interval=f"{s[3]},{s[1]}")
    assert rows == [1, 2, 2, 1]
    assert not np.array_equal(half, plain) and not np.array_equal(half, guided)
