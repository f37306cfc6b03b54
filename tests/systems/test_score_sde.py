"""Score SDEs as a system: the loss, every way of drawing, conditions, likelihoods, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ScoreSdeVeScheduler
from normal_score import moments, normal, tiny
from PIL import Image
from scipy.stats import norm
from tiny import randomise
from torch import Tensor

import suffuse
from suffuse.diffusion.noise import Noise
from suffuse.diffusion.samplers import SAMPLERS
from suffuse.diffusion.schedule import Level
from suffuse.errors import SuffuseError
from suffuse.networks.ncsnpp import PUBLISHED, NCSNppConfig
from suffuse.systems.score_sde import ScoreSDE
from suffuse.weights.inspect import describe
from suffuse.weights.save import save_pixel

GOLDEN = Path(__file__).parents[1] / "parity" / "sde" / "networks"
ALL = ["Vp", "SubVp", "Ve"]
WAYS = ["euler_maruyama", "reverse_diffusion+langevin", "ode", "dpm++_2m", "euler_a"]


def made(sde: str, **changes: Any) -> ScoreSDE:
    model = tiny(sde, **changes)
    randomise(model.unet, 3)
    return ScoreSDE(model)


@torch.no_grad()
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("sde", ALL)
def test_the_loss_is_the_papers(sde: str, weighted: bool) -> None:
    """The score's error, weighed by sigma^2 or g^2, from the SDE's own formulas in NumPy."""
    system, t = made(sde), np.array([1e-3, 0.2, 0.9])
    x0, z = (torch.randn(3, 3, 8, 8, generator=torch.manual_seed(i)) for i in (0, 1))
    if sde == "Ve":
        alpha, sigma, label = np.ones(3), 0.01 * 2000**t, 0.01 * 2000**t
        g2 = 2 * sigma**2 * np.log(2000)  # d sigma^2 / dt
    else:
        integral, beta = 0.1 * t + 19.9 * t**2 / 2, 0.1 + 19.9 * t
        alpha, variance, label = np.exp(-integral / 2), 1 - np.exp(-integral), 999 * t
        sigma, g2 = np.sqrt(variance), beta
        if sde == "SubVp":
            sigma, g2 = variance, beta * (1 - np.exp(-2 * integral))
    a, s = (torch.from_numpy(v).view(3, 1, 1, 1) for v in (alpha, sigma))
    x = (a * x0 + s * z).float()
    out = system.unet(x, torch.from_numpy(label).float())
    score = out if sde == "Ve" else -out / s
    error = (score + z / s).square().mean((1, 2, 3))  # from the score of x given x0
    want = error * torch.from_numpy(g2 if weighted else sigma**2)
    got = system.loss(x0, torch.from_numpy(t).float(), z, weighted=weighted)
    torch.testing.assert_close(got, want.float(), rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("sampler", WAYS)
def test_a_picture_is_the_same_alone_and_among_others(sampler: str) -> None:
    system = made("SubVp")
    fields: dict[str, Any] = {"sampler": sampler, "steps": 22}
    several = system.generate(seed=5, n=3, **fields)
    (alone,) = system.generate(seed=6, **fields)
    assert np.array_equal(several[1], alone) and not np.array_equal(several[0], alone)
    together = system.generate(seed=5, n=3, together=3, **fields)
    for one, other in zip(several, together):
        assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).max() <= 1


@pytest.mark.parametrize("sampler", [*WAYS, *sorted(set(SAMPLERS) - {*WAYS, "lcm"})])
def test_every_way_draws_the_data(sampler: str) -> None:
    """Its mean and deviation, as pictures have them in [-1, 1]."""
    vp, ve = normal("Vp", 0.2, 0.3, image=1), normal("Ve", 0.5, 0.15, image=1)
    steps = 160 if sampler == "dpm++_3m_sde" else 80  # third order asks for more of VP's levels
    for system, want in ((vp, 0.2), (ve, 0.0)):
        mean, spread = moments(
            system.generate(sampler=sampler, steps=steps, seed=0, n=12, together=12)
        )
        assert mean == pytest.approx(want, abs=0.07)
        assert spread == pytest.approx(0.3, rel=0.25)


def test_progress_of_a_solver_with_steps_of_its_own() -> None:
    """As many steps as were asked for, and a preview at each."""
    seen = list(made("Vp").stream(suffuse.Request(sampler="ode", steps=7, seed=0)))
    assert [p.i for p in seen] == list(range(7)) and seen[0].preview().size == (8, 8)
    assert [p.result is not None for p in seen] == [False] * 6 + [True]


# ---- conditions --------------------------------------------------------------------------------


def picture() -> Image.Image:
    levels = np.random.default_rng(0).integers(60, 200, (8, 8, 3), np.uint8)
    return Image.fromarray(levels)


@pytest.mark.parametrize("sampler", ["reverse_diffusion+langevin", "dpm++_2m"])
@pytest.mark.parametrize("sde", ALL)
def test_inpainting_leaves_the_other_pixels_as_they_are(sde: str, sampler: str) -> None:
    mask = Image.new("L", (8, 8))
    mask.paste(255, (0, 0, 4, 8))
    fields: dict[str, Any] = {"image": picture(), "mask": mask, "strength": 1.0, "steps": 30}
    got = np.asarray(made(sde).generate(sampler=sampler, seed=0, **fields)[0])
    assert (got[:, 4:] == np.asarray(picture())[:, 4:]).all()
    assert not (got[:, :4] == np.asarray(picture())[:, :4]).all()


@pytest.mark.parametrize("sde", ["Vp", "Ve"])
def test_colour_on_known_greys(sde: str) -> None:
    system = normal(sde, 0.5 if sde == "Ve" else 0.0, 0.15 if sde == "Ve" else 0.3)
    grey = Image.fromarray(np.full((8, 8), 140, np.uint8) + np.arange(8, dtype=np.uint8))
    first, second = system.colourise(grey, seed=1, n=2, steps=80, sampler="ancestral")
    got = np.asarray(first).astype(float)
    assert np.abs(got.mean(2) - np.asarray(grey)).max() < 1  # the channels are rounded
    assert np.ptp(got, axis=2).mean() > 20 and not np.array_equal(first, second)
    for fields in ({"sampler": "ode"}, {"image": picture()}):
        with pytest.raises(SuffuseError, match="colourising needs a predictor"):
            system.colourise(grey, **fields)
    with pytest.raises(SuffuseError, match="draws grey pictures"):
        normal(sde, 0.5, 0.2, image=1).colourise(grey)


def test_a_measurement_moves_the_mean_as_bayes_says() -> None:
    """Each number was measured, as 0.6 give or take its own deviation: the mean is half way."""
    deviation, seen = 0.3, 0.6
    plain = normal("Vp", 0.0, deviation, image=1)

    def log_prob(x: Tensor, level: Level) -> Tensor:
        gain = level.alpha * deviation**2 / (level.alpha**2 * deviation**2 + level.sigma**2)
        left = deviation**2 * (1 - gain * level.alpha)
        return -((seen - gain * x) ** 2 / (2 * (left + deviation**2))).sum((1, 2, 3))

    fields: dict[str, Any] = {"seed": 0, "n": 8, "together": 8, "steps": 100}
    system = plain.conditioned(log_prob)
    for sampler in ("euler_maruyama", "dpm++_2m", "ode"):
        mean, spread = moments(system.generate(sampler=sampler, **fields))
        assert mean == pytest.approx(seen / 2, abs=0.05)
        assert spread == pytest.approx(deviation / 2**0.5, rel=0.2)
    near = plain.measured(lambda x0: -((seen - x0) ** 2 / (2 * deviation**2)).sum((1, 2, 3)))
    assert 0.2 < moments(near.generate(sampler="ddim", **fields))[0] < seen
    with pytest.raises(SuffuseError, match="not under a condition"):
        system.likelihood(torch.zeros(1, 1, 8, 8), Noise([0], (1, 8, 8)))
    with pytest.raises(SuffuseError, match="at least 0"):
        plain.conditioned(log_prob, scale=-1.0)


# ---- likelihood --------------------------------------------------------------------------------


@pytest.mark.parametrize("sde", ALL)
def test_the_likelihood_of_normal_data_is_exact(sde: str) -> None:
    mean = 0.0 if sde == "Ve" else 0.3  # whose prior takes data to be centred
    system = normal(sde, mean, 0.4, image=1)
    x = mean + 0.4 * torch.randn(3, 1, 8, 8, generator=torch.manual_seed(0))
    found = system.likelihood(x, Noise([1, 2, 3], (1, 8, 8)))
    want = torch.from_numpy(norm(mean, 0.4).logpdf(x.double().numpy()).sum((1, 2, 3)))
    bits = (found.log_prob - want) / 64 / np.log(2)
    assert float(bits.abs().max()) < 1e-3


@pytest.mark.parametrize("sde", ["Vp", "Ve"])
def test_bits_of_grey_levels(sde: str) -> None:
    """Minus the logarithm of each level's probability, the normal distribution's over its width."""
    mean = 0.0 if sde == "Ve" else 0.3  # as above
    system = normal(sde, mean, 0.5, image=1)
    levels = torch.randint(0, 256, (2, 1, 8, 8), generator=torch.manual_seed(0)).float()
    got = system.bits_per_dim(levels, Noise([1, 2], (1, 8, 8)))
    ends = np.linspace(system.low, 1, 257)
    share = np.diff(norm(mean, 0.5).cdf(ends))[levels.int().numpy()]
    want = -np.log2(share).mean((1, 2, 3))
    assert np.abs(got.numpy() - want).max() < 6e-3


# ---- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sde", ALL)
def test_a_saved_model_opens_and_draws_the_same(sde: str, tmp_path: Path) -> None:
    system = made(sde)
    save_pixel(system.model, tmp_path / "model")
    opened = suffuse.load(tmp_path / "model", device="cpu")
    assert isinstance(opened, suffuse.ScoreSDE) and opened.dtype == torch.float32
    assert opened.process == system.process
    assert np.array_equal(opened.generate(seed=3)[0], system.generate(seed=3)[0])
    told = describe(tmp_path / "model")
    assert told.format == "NCSNpp (model folder)" and "prediction" not in told.hints
    assert told.hints["scheduler"] == f"ScoreSde{sde}Scheduler"
    if sde == "Ve":
        theirs = ScoreSdeVeScheduler.from_pretrained(tmp_path / "model/scheduler")
        assert (theirs.config.sigma_max, theirs.config.num_train_timesteps) == (20, 60)


def test_checkpoints_of_score_sde_by_the_name_of_their_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = GOLDEN / "ncsnpp_deep.pth"
    config = NCSNppConfig(
        size=16, width=32, multiples=(1, 1), blocks=1, attention=(8,), unit_range=False,
        input_pyramid="input_skip", output_pyramid=True,
    )  # fmt: skip
    monkeypatch.setitem(PUBLISHED, "ve/small", config)
    system = suffuse.load(path, config="ve/small", device="cpu")
    assert isinstance(system, ScoreSDE)
    process = system.process
    assert (process.sde.prior_std, process.steps, process.snr) == (50, 1000, 0.16)
    assert process.sampler == "reverse_diffusion+langevin"
    last = suffuse.load(path, config="ve/small", ema=False, device="cpu")
    assert not torch.equal(last.unet.stem.weight, system.unet.stem.weight)  # type: ignore[union-attr]
    assert describe(path).format == "NCSN++ or DDPM++ (score_sde)"
    with pytest.raises(
        SuffuseError, match=r"does not say its configuration; suffuse\.load\(path, "
    ):
        suffuse.load(path)
    with pytest.raises(SuffuseError, match=r"no configuration 've/huge'; .* one of: ve/cifar10"):
        suffuse.load(path, config="ve/huge")


def test_every_published_configuration_has_its_sde() -> None:
    from suffuse.weights.score_scheduler import read_process
    from suffuse.weights.score_sde import scheduler_of

    for name, config in PUBLISHED.items():
        process = read_process(scheduler_of(name))
        assert type(process.sde).__name__.lower() == name.split("/")[0]
        assert config.divide_by_label == name.startswith("ve/")
    assert read_process(scheduler_of("ve/ffhq_ncsnpp_continuous")).sde.prior_std == 1348


# ---- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": "7"}, "this model has no classes to choose '7' from"),
        ({"guidance": 3.0}, "nothing to guide to: this model has no classes"),
        ({"width": 9}, "width 9 is not divisible by 2"),
        ({"clip_skip": 1}, "clip_skip is for text-to-image models"),
        ({"sampler": "fast"}, "unknown sampler 'fast'; .* for score SDEs also ode, euler_maruyama"),
        ({"sampler": "reverse_diffusion", "steps": 20}, "20 steps are too few for beta_max 20"),
        ({"sampler": "ode", "grid": "karras"}, "ode takes neither a grid nor an eta"),
        ({"sampler": "ancestral", "eta": 0.5}, "ancestral takes neither a grid nor an eta"),
        ({"sampler": "lcm"}, "distilled"),
        (
            {"sampler": "ode", "image": Image.new("RGB", (8, 8)), "mask": Image.new("L", (8, 8))},
            "an ODE cannot be held to a picture",
        ),
    ],
)
def test_requests_that_cannot_be_met(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SuffuseError, match=message):
        made("Vp").resolve(suffuse.Request(**fields))


def test_ancestral_steps_are_not_for_sub_vp_and_theirs_not_for_others(tmp_path: Path) -> None:
    with pytest.raises(SuffuseError, match="ancestral sampling is for VP and VE"):
        made("SubVp").resolve(suffuse.Request(sampler="ancestral"))
    from suffuse.weights.scheduler import from_config

    with pytest.raises(SuffuseError, match="'ode' is for score SDEs, which this model is not"):
        from_config({"_class_name": "DDPMScheduler"}).using("ode")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"_class_name": "DDPMScheduler"},
            "'DDPMScheduler' is no score SDE's; known ones are: Sco",
        ),
        ({"beta_max": "20"}, "unusable value: beta_max = '20'"),
        ({"beta_max": 0.05}, "beta must grow"),
        ({"snr": 0}, "snr must be above 0, not 0"),
        ({"predictor": "heun"}, "unknown predictor 'heun'"),
        ({"_class_name": "ScoreSdeVeScheduler"}, None),
    ],
)
def test_schedulers_that_cannot_be(
    changes: dict[str, Any], message: str | None, tmp_path: Path
) -> None:
    save_pixel(made("Vp").model, tmp_path / "model")
    file = tmp_path / "model/scheduler/scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    system = suffuse.load(tmp_path / "model", device="cpu")
    assert isinstance(system, ScoreSDE)
    if message is None:  # DDPM++ may predict the noise of a VE SDE too
        assert system.process.sde.prior_std == 1348
        return
    with pytest.raises(SuffuseError, match=f"model: .*{message}"):
        system.resolve(suffuse.Request())


def test_a_network_that_divides_by_sigma_wants_to_be_told_it() -> None:
    system = ScoreSDE(tiny("Vp", embedding="fourier", divide_by_label=True))
    with pytest.raises(SuffuseError, match="divides by sigma, which only that of a VE SDE is told"):
        system.resolve(suffuse.Request())
