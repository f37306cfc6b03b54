"""Losses against stored values of two public implementations, and diffusers' SNR."""

from pathlib import Path

import diffusers
import pytest
import torch
from diffusers.training_utils import compute_snr
from gd_values import (
    GOLDEN,
    SCHEDULES,
    VARIANCES,
    close,
)
from gd_values import (
    KINDS as THEIR_KINDS,
)
from gd_values import (
    ClosedForm as Learned,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from suffuse.diffusion.chain import Chain, Reverse
from suffuse.diffusion.loss import hybrid, min_snr_weight, offset_noise, p2_weight, simple, vlb
from suffuse.diffusion.prediction import KINDS, diffuse, predict, target
from suffuse.diffusion.schedule import Discrete, Level, betas
from suffuse.errors import SuffuseError

PARITY = Path(__file__).parents[1] / "parity"


class ClosedForm:
    """The network behind the stored values: smooth, and different at every t."""

    def prepare(self, cond: object) -> None:
        return None

    def __call__(self, x: Tensor, t: Tensor, context: None = None) -> Tensor:
        t = t.float().view(-1, 1, 1, 1)
        return (0.6 + 0.4 * t / 1000) * (0.8 * x + 0.3 * (t / 170).sin()).tanh() + 0.05 * x.flip(3)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- the simple loss ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["eps", "x0"])
def test_simple_loss_is_that_of_latent_diffusion(kind):
    golden = load_file(PARITY / "ldm/losses/io.safetensors")
    level = Discrete.from_betas(betas("scaled_linear", 1000, 0.0015, 0.0195)).at(golden["in.t"])
    loss = simple(ClosedForm(), golden["in.x0"], None, level, golden["in.noise"], kind)
    assert loss.shape == (2,)
    expected = golden[f"out.{kind}_l2_plain.val_loss_simple"]
    torch.testing.assert_close(loss.mean(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_and_half_precision(kind):
    level = Discrete.from_betas(betas("cosine")).at(torch.tensor([10, 500, 900]))
    x0, eps, weight = normal(3, 2, 4, 4), normal(3, 2, 4, 4, seed=1), torch.tensor([0.0, 1.0, 3.0])
    net = ClosedForm()
    plain = simple(net, x0, None, level, eps, kind)
    torch.testing.assert_close(simple(net, x0, None, level, eps, kind, weight), plain * weight)

    def half(x: Tensor, t: Tensor, context: None) -> Tensor:
        return net(x, t).bfloat16()

    half.prepare = net.prepare
    rounded = simple(half, x0, None, level, eps, kind)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, plain, rtol=2e-2, atol=1e-3)


def test_a_perfect_network_has_no_loss():
    level = Discrete.from_betas(betas("linear")).at(torch.tensor([100, 800]))
    x0, eps = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1)
    for kind in KINDS:
        answer = target(kind, x0, eps, level)
        loss = simple(lambda x, t, c, answer=answer: answer, x0, None, level, eps, kind)
        assert torch.equal(loss, torch.zeros(2)), kind


# ---- min-SNR -----------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [1.0, 5.0, 20.0])
def test_min_snr_with_the_snr_of_diffusers(gamma):
    scheduler = diffusers.DDPMScheduler(1000, 0.00085, 0.012, "scaled_linear")
    t = torch.arange(1000)
    level = Discrete(scheduler.alphas_cumprod).at(t)
    snr = compute_snr(scheduler, t)
    capped = snr.clamp(max=gamma)
    # The first and the third as diffusers' train_text_to_image.py has them.
    for kind, expected in {"eps": capped / snr, "x0": capped, "v": capped / (snr + 1)}.items():
        weight = min_snr_weight(level, kind, gamma)
        torch.testing.assert_close(weight, expected, rtol=2e-5, atol=0, msg=kind)


@pytest.mark.parametrize(("theirs", "kind"), [("noise", "eps"), ("x0", "x0"), ("v", "v")])
def test_min_snr_weights_of_denoising_diffusion_pytorch(theirs, kind):
    golden = load_file(PARITY / "lucid/ddpm/loss_weights.safetensors")
    table = golden[f"out.pred_{theirs}_betas"].double()
    level = Discrete.from_betas(table).at(torch.arange(len(table)))
    expected = golden[f"out.pred_{theirs}_loss_weight"]
    torch.testing.assert_close(min_snr_weight(level, kind), expected, rtol=1e-4, atol=1e-7)


@given(st.floats(0.02, 0.98), st.floats(0.5, 20), st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_every_kind_weighs_the_error_of_x0_alike(alpha, gamma, seed):
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    level = Level(alpha * one, (1 - alpha**2) ** 0.5 * one, torch.zeros(1))
    x0, eps, guess = (normal(1, 3, 4, 4, seed=seed + i).double() for i in range(3))
    x = diffuse(x0, eps, level)
    implied = predict(lambda x, level: guess, "x0")(x, level)
    losses = []
    for kind in KINDS:
        # The output with which a network of this kind would mean the same x0.
        answer = target(kind, implied.x0, implied.eps, level)
        error = (answer - target(kind, x0, eps, level)).square().mean()
        losses.append(error * min_snr_weight(level, kind, gamma)[0])
    for loss in losses:
        torch.testing.assert_close(loss, losses[KINDS.index("x0")], rtol=1e-7, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_min_snr_at_the_ends(kind):
    schedule = Discrete(torch.tensor([1.0, 0.5, 0.0]))
    weight = min_snr_weight(schedule.at(torch.arange(3)), kind)
    expected = {"eps": [0, 1, 1], "x0": [5, 1, 0], "v": [0, 0.5, 0], "flow": [0, 0.25, 0]}
    torch.testing.assert_close(weight, torch.tensor(expected[kind], dtype=torch.float32))


def test_unknown_kinds_are_named():
    level = Discrete(torch.tensor([0.5])).at(torch.tensor([0]))
    with pytest.raises(SuffuseError, match="'epsilon'"):
        min_snr_weight(level, "epsilon")


# ---- offset noise ------------------------------------------------------------------------------


def test_offset_noise_shifts_whole_channels():
    eps, draw = normal(200, 4, 3, 3), normal(200, 4, 1, 1)
    shift = offset_noise(eps, draw, 0.1) - eps
    torch.testing.assert_close(shift, 0.1 * draw.expand_as(eps), rtol=0, atol=1e-6)
    assert offset_noise(eps.bfloat16(), draw, 0.1).dtype == torch.bfloat16


# ---- P2 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "gamma"), [(1.0, 0.5), (1.0, 1.0), (0.5, 1.0)])
@pytest.mark.parametrize("kind", KINDS)
def test_p2_weighs_every_kind_alike(kind, k, gamma):
    """The weighted error of any target is the paper's weighted error of eps."""
    schedule = Discrete.from_betas(betas("scaled_linear"))
    t = torch.tensor([5, 300, 600, 950])
    level = schedule.at(t)
    x0, eps, wrong = normal(4, 2, 4, 4), normal(4, 2, 4, 4, seed=1), normal(4, 2, 4, 4, seed=2)
    # A network that is wrong about the noise, whatever it is asked for.
    guess_x0 = (diffuse(x0, eps, level) - level.sigma * wrong) / level.alpha
    answer = target(kind, guess_x0, wrong, level)
    loss = simple(
        lambda x, t, c: answer, x0, None, level, eps, kind, p2_weight(level, kind, k, gamma)
    )
    snr = schedule.alpha_bar[t] / (1 - schedule.alpha_bar[t])
    want = (wrong - eps).square().mean((1, 2, 3)) / (k + snr) ** gamma
    torch.testing.assert_close(loss, want.float(), rtol=2e-4, atol=0)


def test_p2_at_pure_noise_is_finite():
    level = Level(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1), torch.tensor([999]))
    for kind in KINDS:
        assert p2_weight(level, kind).isfinite().all()


# ---- the bound ---------------------------------------------------------------------------------


def bound_of(loss, kind, theirs, **options):
    reverse = Reverse(Chain(SCHEDULES["linear"]), THEIR_KINDS[kind], VARIANCES[theirs])
    batch = GOLDEN["in.x0"], None, GOLDEN["in.t"], GOLDEN["in.noise"]
    return loss(Learned(reverse.learned), *batch, reverse, **options)


@pytest.mark.parametrize("theirs", VARIANCES)
@pytest.mark.parametrize("kind", THEIR_KINDS)
def test_the_bound_as_a_loss_is_that_of_guided_diffusion(kind, theirs):
    loss = bound_of(vlb, kind, theirs)
    for scale, name in ((1, "KL"), (100, "RESCALED_KL")):
        stored = GOLDEN[f"loss.{kind}.{theirs}.{name}.loss"]
        # Theirs is a difference of float32 numbers near 1: the 2e-8.
        torch.testing.assert_close(scale * loss, stored, rtol=1e-5, atol=scale * 2e-8)


@pytest.mark.parametrize("theirs", ["LEARNED", "LEARNED_RANGE"])
@pytest.mark.parametrize("kind", THEIR_KINDS)
def test_the_hybrid_loss_is_that_of_guided_diffusion(kind, theirs):
    for options, name in (({}, "RESCALED_MSE"), ({"weight": 1 / 100}, "MSE")):
        close(
            bound_of(hybrid, kind, theirs, **options), GOLDEN[f"loss.{kind}.{theirs}.{name}.loss"]
        )


def test_the_bound_in_the_hybrid_loss_teaches_the_variance_alone():
    class Trained(Learned):
        scale_of_mean = torch.ones((), requires_grad=True)

        def __call__(self, x, label, context=None):
            mean, told = super().__call__(x, label).chunk(2, 1)
            return torch.cat([self.scale_of_mean * mean, told + 0 * self.scale_of_mean], 1)

    net, reverse = Trained(True), Reverse(Chain(SCHEDULES["linear"]), "eps", "learned_range")
    batch = GOLDEN["in.x0"], None, GOLDEN["in.t"], GOLDEN["in.noise"]
    gradients = [
        torch.autograd.grad(hybrid(net, *batch, reverse, weight).sum(), net.scale_of_mean)[0]
        for weight in (0.0, 1.0)
    ]
    assert gradients[0] != 0 and torch.equal(*gradients)
    assert torch.autograd.grad(vlb(net, *batch, reverse).sum(), net.scale_of_mean)[0] != 0


def test_the_hybrid_loss_needs_a_learned_variance():
    with pytest.raises(SuffuseError, match="needs a network that learns its variance"):
        bound_of(hybrid, "EPSILON", "FIXED_LARGE")
