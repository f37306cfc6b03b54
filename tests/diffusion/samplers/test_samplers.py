"""The table of samplers, their names, and what holds for each of them."""

import diffusers
import pytest
import torch
from closed_form import denoise

from suffuse.diffusion.grid import GridSpec, make_grid
from suffuse.diffusion.noise import Noise
from suffuse.diffusion.prediction import predict
from suffuse.diffusion.samplers import SAMPLERS, Resolved, resolve, sampler_names
from suffuse.diffusion.schedule import Discrete, betas
from suffuse.errors import SuffuseError

SCHEDULE = Discrete.from_betas(betas("scaled_linear", 1000, 0.00085, 0.012))
ASKED_FOR = {
    *("ddpm", "ddim", "plms", "euler", "euler_a", "heun", "lms", "dpm2", "dpm2_a", "dpm++_2s_a"),
    *("dpm++_2m", "dpm++_sde", "dpm++_2m_sde", "unipc", "lcm"),
}


class Counted:
    """A denoiser that counts its calls."""

    def __init__(self, kind="eps"):
        self.calls = 0
        self._denoiser = predict(lambda x, level: denoise(x, level.label), kind)

    def __call__(self, x, level):
        self.calls += 1
        return self._denoiser(x, level)


def run(name, n=8, seeds=(0,), kind="eps", spec=None, **options):
    entry = SAMPLERS[name]
    grid = make_grid(SCHEDULE, n, spec or entry.grid)
    noise = Noise(seeds, (2, 3, 5))
    return list(entry(Counted(kind), noise() * grid.start, grid, noise, **options))


# ---- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        *[(name, name) for name in sampler_names()],
        *[(entry.title, name) for name, entry in SAMPLERS.items()],
        *[(entry.diffusers, name) for name, entry in SAMPLERS.items() if entry.diffusers],
        ("EULER A", "euler_a"),
        ("k_euler_ancestral", "euler_a"),
        ("dpmpp_2s_ancestral", "dpm++_2s_a"),
        ("sample_dpmpp_2m_sde", "dpm++_2m_sde"),
        ("dpm_2_ancestral", "dpm2_a"),
        ("uni_pc", "unipc"),
        ("PNDM", "plms"),
        ("EulerDiscrete", "euler"),
    ],
)
def test_names(asked, name):
    assert resolve(asked) == Resolved(name)
    assert resolve(f"{asked} Karras") == Resolved(name, "karras")


def test_names_that_say_more():
    assert resolve("DPM++ 2M SDE Heun Exponential") == Resolved(
        "dpm++_2m_sde", "exponential", {"solver": "heun"}
    )
    assert resolve("Euler Polyexponential").grid == "polyexponential"
    assert resolve("uni_pc_bh1").options == {"variant": "bh1"}


@pytest.mark.parametrize(
    ("asked", "predictor", "corrector"),
    [
        ("reverse_diffusion+langevin", "reverse_diffusion", "langevin"),
        ("Euler Maruyama", "euler_maruyama", "none"),
        ("ancestral + annealed", "ancestral", "annealed"),
        ("probability_flow+none", "probability_flow", "none"),
    ],
)
def test_names_of_score_sdes(asked, predictor, corrector):
    assert resolve("ODE") == Resolved("ode")
    options = {"predictor": predictor, "corrector": corrector}
    assert resolve(asked) == Resolved("pc", options=options)


@pytest.mark.parametrize(
    "name", ["", "karras", "eulers", "DPM++", "  ", "langevin", "ode+langevin", "ancestral+mala"]
)
def test_unknown_names(name):
    with pytest.raises(SuffuseError, match=r"unknown sampler .*; known ones are: ddpm, ddim, plms"):
        resolve(name)


def test_everything_asked_for_is_there():
    assert set(sampler_names()) >= ASKED_FOR
    for entry in SAMPLERS.values():
        assert not entry.diffusers or hasattr(diffusers, entry.diffusers)


# ---- what holds for all --------------------------------------------------------------------------


@pytest.mark.parametrize("name", sampler_names())
def test_one_step_for_each_level(name):
    steps = run(name)
    assert [step.i for step in steps] == list(range(8))
    for step in steps:
        assert step.x.shape == step.x0.shape == (1, 2, 3, 5)
        assert step.x.dtype == torch.float32 and step.x.isfinite().all()


@pytest.mark.parametrize("name", sampler_names())
def test_a_single_step(name):
    assert len(run(name, 1)) == 1


@pytest.mark.parametrize("name", sampler_names())
def test_evaluations(name):
    entry = SAMPLERS[name]
    grid = make_grid(SCHEDULE, 8, entry.grid)
    noise, denoiser = Noise([0], (2, 3, 5)), Counted()
    list(entry(denoiser, noise(), grid, noise))
    # The last of the steps with two evaluations needs but one, PLMS one more for its first.
    expected = 8 * entry.evaluations - (entry.evaluations - 1) + (name == "plms")
    assert denoiser.calls == expected


@pytest.mark.parametrize("name", sampler_names())
def test_an_image_is_the_same_alone_and_in_a_batch(name):
    together = run(name, seeds=(3, 4, 5))[-1].x
    for i, seed in enumerate((3, 4, 5)):
        alone = run(name, seeds=(seed,))[-1].x
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", sampler_names())
def test_stochastic_samplers_and_no_others_draw(name):
    grid = make_grid(SCHEDULE, 8, SAMPLERS[name].grid)
    first = torch.randn(1, 2, 3, 5, generator=torch.Generator().manual_seed(0))
    a, b = (
        list(SAMPLERS[name](Counted(), first.clone(), grid, Noise([seed], (2, 3, 5))))[-1].x
        for seed in (1, 2)
    )
    assert torch.equal(a, b) != SAMPLERS[name].stochastic


@pytest.mark.parametrize("name", sampler_names())
def test_what_is_written_into_a_step_is_where_the_next_begins(name):
    """The contract that masks rely on: the yielded x is the sampler's own, not a copy."""
    entry, n = SAMPLERS[name], 6
    grid = make_grid(SCHEDULE, n, entry.grid)
    noise = Noise([0], (2, 3, 5))
    seen = []

    def spy(x, level):
        seen.append(x.clone())
        return Counted()(x, level)

    steps = entry(spy, noise() * grid.start, grid, noise)
    for step in steps:
        step.x.fill_(0.5)
        before = len(seen)
        if next(steps, None) is None:
            break
        assert torch.equal(seen[before], torch.full_like(step.x, 0.5))
    assert torch.equal(step.x, torch.full_like(step.x, 0.5))


@pytest.mark.parametrize("name", sampler_names())
def test_zero_terminal_snr_with_v(name):
    """Samplers start from pure noise without dividing by alpha = 0, clamped where they must."""
    from suffuse.diffusion.schedule import zero_terminal_snr

    schedule = Discrete(zero_terminal_snr(SCHEDULE.alpha_bar))
    exact = GridSpec("trailing") if name in ("ddpm", "ddim", "plms", "lcm", "euler") else None
    grid = make_grid(schedule, 8, exact or GridSpec("trailing", terminal="clamp"))
    noise = Noise([0], (2, 3, 5))
    for step in SAMPLERS[name](Counted("v"), noise(), grid, noise):
        assert step.x.isfinite().all()


@pytest.mark.parametrize("name", [n for n in sampler_names() if "s_noise" in SAMPLERS[n].takes])
def test_s_noise_scales_the_noise_of_the_steps(name):
    entry, x = SAMPLERS[name], torch.ones(1, 2, 3, 5)
    grid = make_grid(SCHEDULE, 8, entry.grid)
    options = {key: 1.0 for key in ("eta", "s_churn") if key in entry.takes}
    draw = Noise([0], (2, 3, 5))
    *_, scaled = entry(Counted(), x, grid, draw, s_noise=0.5, **options)
    draw = Noise([0], (2, 3, 5))
    *_, plain = entry(Counted(), x, grid, lambda: 0.5 * draw(), **options)
    torch.testing.assert_close(scaled.x, plain.x)
    *_, other = entry(Counted(), x, grid, Noise([0], (2, 3, 5)), **options)
    assert not torch.allclose(scaled.x, other.x, rtol=1e-3)


def test_unknown_options_are_refused():
    with pytest.raises(SuffuseError, match="sampler LMS has no option 'eta'; it has: order"):
        run("lms", eta=0.5)
    with pytest.raises(SuffuseError, match="has no option 'eta'; it has: warmup"):
        run("plms", eta=0.5)


def test_float64_stays_float64():
    grid = make_grid(SCHEDULE, 4, GridSpec())
    x = torch.ones(1, 2, 3, 5, dtype=torch.float64)
    for name in sampler_names():
        *_, last = SAMPLERS[name](Counted(), x, grid, lambda: torch.zeros_like(x))
        assert last.x.dtype == torch.float64
