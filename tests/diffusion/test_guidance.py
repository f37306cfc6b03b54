"""Guidance with a small U-Net, thresholds and rescaling against diffusers."""

import diffusers
import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from suffuse.diffusion.cond import Cond
from suffuse.diffusion.guidance import (
    bind,
    cfg,
    clip,
    dynamic_threshold,
    rescaled,
    thresholded,
    within,
)
from suffuse.diffusion.prediction import diffuse, predict
from suffuse.diffusion.schedule import Discrete, Level, betas
from suffuse.errors import SuffuseError
from suffuse.networks.families import SDConfig, stable_diffusion

LEVEL = Level(torch.tensor(0.8), torch.tensor(0.6), torch.tensor(300))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def text(batch: int, length: int, seed: int = 0) -> Cond:
    return Cond(tokens=normal(batch, length, 12, seed=seed))


@pytest.fixture(scope="module")
def unet():
    """Two levels, cross-attention in both; no parameter left at zero or one."""
    config = SDConfig(channels=(8, 16), blocks=1, depth=(1, 1), heads=(2, 2), context=12, groups=4)
    net = stable_diffusion(config).eval().requires_grad_(False)
    for i, p in enumerate(net.parameters()):
        p.add_(0.1 * normal(*p.shape, seed=i))
    return net


@pytest.fixture
def batches(unet):
    """The batch sizes that the U-Net is called with, in order."""
    sizes: list[int] = []
    hook = unet.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    yield sizes
    hook.remove()


# ---- classifier-free guidance ------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["shared", "own"])
def test_guidance_is_one_call_of_both(unet, batches, labels):
    cond, null, x = text(2, 5, seed=1), text(1, 5, seed=2), normal(2, 4, 8, 8)
    label = torch.tensor(300) if labels == "shared" else torch.tensor([300, 20])
    level = LEVEL._replace(label=label)
    with_cond = bind(unet, cond)(x, level)
    without = bind(unet, null.expand(2))(x, level)
    batches.clear()
    guided = cfg(unet, cond, null, 7.5)(x, level)
    assert batches == [2]
    assert (with_cond - without).abs().max() > 0.01
    torch.testing.assert_close(guided, without + 7.5 * (with_cond - without), rtol=1e-4, atol=1e-4)


def test_each_label_reaches_its_own_image(unet):
    cond, null, x = text(2, 5, seed=1), text(2, 5, seed=2), normal(2, 4, 8, 8)
    both = cfg(unet, cond, null, 3)(x, LEVEL._replace(label=torch.tensor([900, 20])))
    for i, label in enumerate((900, 20)):
        mine, nothing = (Cond(tokens=c.tokens[i : i + 1]) for c in (cond, null))
        alone = cfg(unet, mine, nothing, 3)(x[i : i + 1], LEVEL._replace(label=torch.tensor(label)))
        torch.testing.assert_close(both[i : i + 1], alone, rtol=1e-4, atol=1e-5)


def test_scale_one_does_not_pay_for_the_null(unet, batches):
    cond, x = text(2, 5), normal(2, 4, 8, 8)
    plain = bind(unet, cond)(x, LEVEL)
    assert torch.equal(cfg(unet, cond, text(1, 5, seed=1), 1.0, rescale=0.7)(x, LEVEL), plain)
    assert torch.equal(cfg(unet, cond, None, 1)(x, LEVEL), plain)
    assert batches == [2, 2, 2]


def test_scale_zero_is_the_null_alone(unet):
    cond, null, x = text(2, 5), text(2, 5, seed=1), normal(2, 4, 8, 8)
    expected = bind(unet, null)(x, LEVEL)
    torch.testing.assert_close(cfg(unet, cond, null, 0)(x, LEVEL), expected, rtol=1e-4, atol=1e-5)


def test_prompts_of_different_lengths_do_not_disturb_each_other(unet):
    cond, null, x = text(1, 9, seed=1), text(1, 4, seed=2), normal(1, 4, 8, 8)
    with_cond, without = bind(unet, cond)(x, LEVEL), bind(unet, null)(x, LEVEL)
    guided = cfg(unet, cond, null, 4)(x, LEVEL)
    torch.testing.assert_close(guided, without + 4 * (with_cond - without), rtol=1e-4, atol=1e-4)


@given(st.floats(-2, 20), st.floats(-2, 20))
@settings(max_examples=8, deadline=None)
def test_guidance_is_linear_in_the_scale(unet, a, b):
    cond, null, x = text(1, 3), text(1, 3, seed=1), normal(1, 4, 4, 4)

    def guided(scale: float) -> Tensor:
        return cfg(unet, cond, null, scale)(x, LEVEL)

    middle = (guided(a) + guided(b)) / 2
    torch.testing.assert_close(guided((a + b) / 2), middle, rtol=1e-4, atol=1e-4)


def test_the_scale_is_one_more_than_the_papers_weight(unet):
    x, cond, null = normal(1, 4, 8, 8), text(1, 5), text(1, 5, seed=1)
    w = 2.5
    papers = (1 + w) * bind(unet, cond)(x, LEVEL) - w * bind(unet, null)(x, LEVEL)
    ours = cfg(unet, cond, null, 1 + w)(x, LEVEL)
    torch.testing.assert_close(ours, papers, rtol=1e-4, atol=1e-5)


def test_guidance_within_an_interval():
    raw = within(lambda x, level: x + 1, lambda x, level: x, 0.5, 2.0)
    guided = {}
    for s in (0.4, 0.5, 0.51, 2.0, 2.01, float("inf")):
        angle = torch.tensor(s).double().arctan()
        alpha = torch.where(torch.tensor(s).isinf(), 0.0, angle.cos())
        level = Level(alpha, alpha * s if s < 3 else angle.sin(), torch.tensor(0))
        guided[s] = float(raw(torch.zeros(1), level)) == 1
    assert [s for s, yes in guided.items() if yes] == [0.51, 2.0]
    with pytest.raises(SuffuseError, match="0 <= low < high, not 2 to 1"):
        within(raw, raw, 2.0, 1.0)


def test_the_conditioning_is_prepared_once(unet, monkeypatch):
    calls = []
    prepare = unet.prepare
    monkeypatch.setattr(unet, "prepare", lambda cond: calls.append(cond) or prepare(cond))
    raw = cfg(unet, text(1, 3), text(1, 3, seed=1), 5)
    for _ in range(3):
        raw(normal(1, 4, 4, 4), LEVEL)
    assert len(calls) == 1


def test_a_network_without_conditioning(unet):
    plain = stable_diffusion(
        SDConfig(channels=(8, 8), blocks=1, depth=(0, 0), mid_depth=0, heads=(1, 1), groups=4)
    )
    x = normal(2, 4, 8, 8)
    with torch.no_grad():
        expected = plain(x, LEVEL.label, plain.prepare(Cond()))
        torch.testing.assert_close(bind(plain, Cond())(x, LEVEL), expected)
        torch.testing.assert_close(cfg(plain, Cond(), Cond(), 3)(x, LEVEL), expected)


def test_guidance_needs_a_null(unet):
    with pytest.raises(ValueError, match="null"):
        cfg(unet, text(1, 3), None, 7.5)


# ---- rescaling ---------------------------------------------------------------------------------


@given(st.floats(0, 1), st.integers(0, 2**32), st.floats(0.1, 10))
@settings(max_examples=50, deadline=None)
def test_rescaling_is_that_of_diffusers(phi, seed, spread):
    guided, cond = spread * normal(2, 4, 5, 5, seed=seed), normal(2, 4, 5, 5, seed=seed + 1)
    expected = rescale_noise_cfg(guided, cond, phi)
    torch.testing.assert_close(rescaled(guided, cond, phi), expected, rtol=1e-6, atol=1e-6)


def test_rescaling_at_its_ends():
    guided, cond = 3 * normal(2, 4, 5, 5), normal(2, 4, 5, 5, seed=1)
    assert torch.equal(rescaled(guided, cond, 0), guided)
    full = rescaled(guided, cond, 1)
    torch.testing.assert_close(full.std((1, 2, 3)), cond.std((1, 2, 3)))
    flat = torch.zeros(1, 4, 5, 5)
    assert torch.equal(rescaled(flat, cond[:1], 1), flat)


def test_rescaled_guidance(unet):
    cond, null, x = text(2, 5, seed=1), text(2, 5, seed=2), normal(2, 4, 8, 8)
    plain = cfg(unet, cond, null, 7.5)(x, LEVEL)
    expected = rescale_noise_cfg(plain, bind(unet, cond)(x, LEVEL), 0.7)
    got = cfg(unet, cond, null, 7.5, rescale=0.7)(x, LEVEL)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


# ---- thresholds --------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 2**32),
    spread=st.floats(0.1, 5),
    ratio=st.floats(0.5, 1),
    maximum=st.floats(1, 4),
)
@settings(max_examples=50, deadline=None)
def test_dynamic_threshold_is_that_of_diffusers(seed, spread, ratio, maximum):
    theirs = diffusers.DDPMScheduler(
        thresholding=True, dynamic_thresholding_ratio=ratio, sample_max_value=maximum
    )
    x0 = spread * normal(3, 3, 6, 5, seed=seed)
    expected = theirs._threshold_sample(x0)
    torch.testing.assert_close(thresholded(x0, ratio, maximum), expected, rtol=1e-6, atol=1e-6)


def test_dynamic_threshold_without_a_maximum_is_imagens():
    x0 = 4 * normal(2, 3, 8, 8)
    got = thresholded(x0, 0.95)
    for image, ours in zip(x0.numpy(), got.numpy()):
        s = max(np.quantile(np.abs(image), 0.95), 1)
        np.testing.assert_allclose(ours, np.clip(image, -s, s) / s, rtol=1e-5)
    quiet = 0.2 * x0.clamp(-4, 4)
    assert torch.equal(thresholded(quiet, 0.995), quiet)
    assert thresholded(x0.bfloat16(), 0.95).dtype == torch.bfloat16


@pytest.mark.parametrize("limit", ["clip", "dynamic"])
def test_rederived_noise_explains_x(limit):
    x, raw = 2 * normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1)
    plain = predict(lambda x, level: raw, "eps")
    wrap = clip if limit == "clip" else dynamic_threshold
    kept, rederived = wrap(plain)(x, LEVEL), wrap(plain, rederive=True)(x, LEVEL)
    assert torch.equal(kept.x0, rederived.x0) and kept.x0.abs().max() <= 1
    assert kept.eps is raw and kept.raw is raw and rederived.raw is raw
    assert not torch.equal(plain(x, LEVEL).x0, kept.x0)
    torch.testing.assert_close(diffuse(rederived.x0, rederived.eps, LEVEL), x)


@pytest.mark.parametrize("rederive", [False, True])
@pytest.mark.parametrize("limit", [1.0, 1.5])
def test_clipping_in_a_ddim_step_is_that_of_diffusers(rederive, limit):
    theirs = diffusers.DDIMScheduler(clip_sample=True, clip_sample_range=limit)
    theirs.set_timesteps(10)
    schedule = Discrete.from_betas(betas("linear"))
    x, raw = 2 * normal(1, 3, 4, 4), normal(1, 3, 4, 4, seed=1)
    denoiser = clip(predict(lambda x, level: raw, "eps"), limit, rederive=rederive)
    p = denoiser(x, schedule.at(torch.tensor([500])))
    stepped = diffuse(p.x0, p.eps, schedule.at(torch.tensor([400])))
    expected = theirs.step(raw, 500, x, use_clipped_model_output=rederive).prev_sample
    torch.testing.assert_close(stepped, expected, rtol=1e-5, atol=1e-5)
