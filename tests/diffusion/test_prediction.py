"""Reading outputs as eps, x0, v and flow: round trips, diffusers, and stored values."""

import math
from pathlib import Path

import diffusers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from suffuse.diffusion.prediction import KINDS, diffuse, eps_to_x0, predict, target, x0_to_eps
from suffuse.diffusion.schedule import Discrete, Level, betas
from suffuse.errors import SuffuseError

PARITY = Path(__file__).parents[1] / "parity"
THEIR_KINDS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}


def scalar(alpha: float, sigma: float) -> Level:
    """A level as samplers hold it."""
    return Level(torch.tensor(alpha).double(), torch.tensor(sigma).double(), torch.tensor(0))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


angles = st.floats(0.01, math.pi / 2 - 0.01)
levels = st.one_of(
    angles.map(lambda a: scalar(math.cos(a), math.sin(a))),  # variance preserving
    st.floats(0.01, 100).map(lambda sigma: scalar(1.0, sigma)),  # variance exploding
    st.floats(0.01, 0.99).map(lambda t: scalar(1 - t, t)),  # rectified flow
)


@pytest.mark.parametrize("kind", KINDS)
@given(level=levels, seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_the_target_gives_back_x0_and_eps(kind, level, seed):
    x0, eps = normal(2, 3, 4, 4, seed=seed), normal(2, 3, 4, 4, seed=seed + 1)
    raw = target(kind, x0, eps, level)
    p = predict(lambda x, level: raw, kind)(diffuse(x0, eps, level), level)
    torch.testing.assert_close(p.x0, x0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(p.eps, eps, rtol=1e-9, atol=1e-9)
    assert p.raw is raw


@pytest.mark.parametrize("kind", KINDS)
@given(level=levels, seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_whatever_the_network_says_x0_and_eps_explain_x(kind, level, seed):
    x, raw = normal(1, 3, 4, 4, seed=seed), normal(1, 3, 4, 4, seed=seed + 1)
    p = predict(lambda x, level: raw, kind)(x, level)
    torch.testing.assert_close(diffuse(p.x0, p.eps, level), x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(target(kind, p.x0, p.eps, level), raw, rtol=1e-8, atol=1e-8)


def test_levels_of_a_training_batch():
    level = Discrete.from_betas(betas("scaled_linear", 1000, 0.00085, 0.012)).at(
        torch.tensor([0, 400, 900])
    )
    x0, eps = normal(3, 4, 2, 2).float(), normal(3, 4, 2, 2, seed=1).float()
    x = diffuse(x0, eps, level)
    for kind in KINDS:
        raw = target(kind, x0, eps, level)
        p = predict(lambda x, level, raw=raw: raw, kind)(x, level)
        torch.testing.assert_close(p.x0, x0, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(p.eps, eps, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("alpha", "sigma"), [(0.0, 1.0), (1.0, 0.0)])
def test_the_ends_stay_finite(kind, alpha, sigma):
    level, x = scalar(alpha, sigma), normal(1, 3, 4, 4)
    raw = normal(1, 3, 4, 4, seed=1)
    p = predict(lambda x, level: raw, kind)(x, level)
    assert p.x0.isfinite().all() and p.eps.isfinite().all()


def test_pure_noise_and_pure_signal():
    noise, signal = scalar(0.0, 1.0), scalar(1.0, 0.0)
    x, raw = normal(1, 3, 4, 4), normal(1, 3, 4, 4, seed=1)
    for kind, x0 in {"x0": raw, "v": -raw, "flow": x - raw, "eps": torch.zeros_like(x)}.items():
        assert torch.equal(predict(lambda x, level: raw, kind)(x, noise).x0, x0), kind
    for kind, eps in {"eps": raw, "v": raw, "flow": x + raw, "x0": torch.zeros_like(x)}.items():
        assert torch.equal(predict(lambda x, level: raw, kind)(x, signal).eps, eps), kind
    assert torch.equal(eps_to_x0(x, raw, signal), x)
    assert torch.equal(x0_to_eps(x, raw, noise), x)


# ---- diffusers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("kind", ["eps", "x0", "v"])
def test_x0_is_that_of_diffusers(kind, zero_snr):
    theirs = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=THEIR_KINDS[kind],
        clip_sample=False,
        rescale_betas_zero_snr=zero_snr,
    )
    theirs.set_timesteps(1000)
    schedule = Discrete(theirs.alphas_cumprod)
    x, raw = normal(1, 4, 3, 3).float(), normal(1, 4, 3, 3, seed=1).float()
    # Their eps divides by zero at the last step of a zero-terminal-SNR schedule.
    for t in (0, 500, 998 if kind == "eps" and zero_snr else 999):
        p = predict(lambda x, level: raw, kind)(x, schedule.at(torch.tensor([t])))
        expected = theirs.step(raw, t, x).pred_original_sample
        scale = expected.abs().max()
        torch.testing.assert_close(p.x0 / scale, expected / scale, rtol=0, atol=1e-5)


def test_forward_process_and_velocity_are_those_of_diffusers():
    theirs = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    level = Discrete(theirs.alphas_cumprod).at(t := torch.tensor([3, 700]))
    x0, eps = normal(2, 3, 4, 4).float(), normal(2, 3, 4, 4, seed=1).float()
    torch.testing.assert_close(diffuse(x0, eps, level), theirs.add_noise(x0, eps, t))
    torch.testing.assert_close(target("v", x0, eps, level), theirs.get_velocity(x0, eps, t))


def test_a_flow_step_is_that_of_diffusers():
    theirs = diffusers.FlowMatchEulerDiscreteScheduler()
    theirs.set_timesteps(10)
    x, raw = normal(1, 4, 3, 3).float(), normal(1, 4, 3, 3, seed=1).float()
    now, after = theirs.sigmas[0].item(), theirs.sigmas[1].item()
    p = predict(lambda x, level: raw, "flow")(x, scalar(1 - now, now))
    stepped = diffuse(p.x0, p.eps, scalar(1 - after, after))
    expected = theirs.step(raw, theirs.timesteps[0], x).prev_sample
    torch.testing.assert_close(stepped, expected, rtol=1e-5, atol=1e-6)


# ---- stored values of the public implementations -----------------------------------------------


def test_k_diffusion_scalings():
    golden = load_file(PARITY / "kdiff/schedules/io.safetensors")
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for i, sigma in enumerate(golden["in.sigma"].double()):
        # k-diffusion's x is x0 + sigma * eps; ours is that times c_in.
        alpha = (1 + sigma**2).rsqrt()
        level = Level(alpha, alpha * sigma, zero)
        v = predict(lambda x, level: one, "v")(zero, level).x0
        skip = predict(lambda x, level: zero, "v")(alpha * one, level).x0
        eps = predict(lambda x, level: one, "eps")(zero, level).x0
        for ours, name in (
            (skip, "out.v.scalings.00"),
            (v, "out.v.scalings.01"),
            (alpha * one, "out.v.scalings.02"),
            (eps, "out.eps.scalings.00"),
            (alpha * one, "out.eps.scalings.01"),
        ):
            torch.testing.assert_close(ours.float(), golden[name][i : i + 1], msg=name)


def test_one_output_read_as_eps_and_as_v_by_k_diffusion():
    golden = load_file(PARITY / "kdiff/schedules/io.safetensors")
    sigma = golden["in.sigma"].double().view(-1, 1, 1, 1)
    alpha = (1 + sigma**2).rsqrt()
    level = Level(alpha, alpha * sigma, torch.zeros(2))
    x = 3 * golden["in.x"].double() * alpha
    # The same network made both files: its output is recovered from one and predicts the other.
    raw = x0_to_eps(x, golden["out.eps.denoised"].double(), level)
    p = predict(lambda x, level: raw, "v")(x, level)
    torch.testing.assert_close(p.x0.float(), golden["out.v.denoised"], rtol=1e-5, atol=1e-5)


def closed_form(x: Tensor, t: Tensor) -> Tensor:
    """The network behind the stored values: smooth, and different at every t."""
    t = t.float().view(-1, 1, 1, 1)
    return (0.6 + 0.4 * t / 1000) * (0.8 * x + 0.3 * (t / 170).sin()).tanh() + 0.05 * x.flip(3)


@pytest.mark.parametrize(("theirs", "kind"), [("START_X", "x0"), ("EPSILON", "eps")])
def test_guided_diffusion(theirs, kind):
    golden = load_file(PARITY / "gd/diffusion/io.safetensors")
    level = Discrete.from_betas(betas("linear", 100, 1e-3, 0.2)).at(golden["in.t"])
    x = diffuse(golden["in.x0"], golden["in.noise"], level)
    assert torch.equal(x, golden["q_linear.sample"])
    # The network sees t * 1000 / T, and x0 is clipped.
    p = predict(lambda x, level: closed_form(x, level.label * 10), kind)(x, level)
    expected = golden[f"p.{theirs}.FIXED_SMALL.pred_xstart"]
    torch.testing.assert_close(p.x0.clamp(-1, 1), expected, rtol=1e-5, atol=1e-6)


def test_unknown_kinds_are_named():
    x = torch.zeros(1, 1, 1, 1)
    with pytest.raises(SuffuseError, match=r"'epsilon'.*eps, x0, v, flow"):
        predict(lambda x, level: x, "epsilon")
    with pytest.raises(SuffuseError, match="'velocity'"):
        target("velocity", x, x, scalar(1.0, 0.0))
