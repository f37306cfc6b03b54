"""Scores against SciPy, brute force and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter
from torch import Tensor

from suffuse.errors import SuffuseError
from suffuse.evaluation.metrics import frechet, inception_score, precision_recall, psnr, ssim
from suffuse.evaluation.statistics import Gaussian


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def features(n: int, d: int, seed: int) -> Tensor:
    return normal(n, d, seed=seed) @ normal(d, d, seed=seed + 1) + normal(d, seed=seed + 2)


@pytest.mark.parametrize("n", [500, 9])  # more than features, and fewer: a singular covariance
def test_frechet_agrees_with_scipy(n):
    a, b = features(n, 12, seed=1), features(n + 3, 12, seed=10)
    means = a.mean(0).numpy(), b.mean(0).numpy()
    covariances = np.cov(a.numpy(), rowvar=False), np.cov(b.numpy(), rowvar=False)
    root = sqrtm(covariances[0] @ covariances[1]).real
    want = np.square(means[0] - means[1]).sum() + np.trace(sum(covariances) - 2 * root)
    assert frechet(Gaussian.of(a), Gaussian.of(b)) == pytest.approx(want, rel=1e-6)


def test_frechet_of_one_feature_and_of_equal_sets():
    one = Gaussian(torch.tensor([3.0]).double(), torch.tensor([[4.0]]).double())
    other = Gaussian(torch.tensor([1.0]).double(), torch.tensor([[0.25]]).double())
    assert frechet(one, other) == pytest.approx((3 - 1) ** 2 + (2 - 0.5) ** 2)
    same = Gaussian.of(features(50, 8, seed=3))
    assert frechet(same, same) == pytest.approx(0, abs=1e-6)
    with pytest.raises(SuffuseError, match="1 features cannot be compared with 8"):
        frechet(one, same)


def test_inception_score_by_its_formula():
    logits = normal(60, 7, seed=4) * 3
    p = torch.softmax(logits, 1).numpy()
    want = math.exp((p * (np.log(p) - np.log(p.mean(0)))).sum(1).mean())
    assert inception_score(logits, splits=1) == (pytest.approx(want, rel=1e-9), 0.0)


def test_inception_score_at_its_ends():
    certain = 1e4 * torch.eye(5).repeat(8, 1)  # every class as often, and no doubt at all
    assert inception_score(certain, splits=1)[0] == pytest.approx(5)
    assert inception_score(torch.zeros(40, 5)) == (pytest.approx(1), pytest.approx(0, abs=1e-9))


def test_inception_score_draws_nothing_from_the_world():
    before = torch.get_rng_state()
    scores = {inception_score(normal(30, 4, seed=5)) for _ in range(2)}
    assert len(scores) == 1 and torch.equal(torch.get_rng_state(), before)


def brute_force(real: np.ndarray, generated: np.ndarray, k: int) -> tuple[float, float]:
    def covered(points: np.ndarray, members: np.ndarray) -> float:
        hits = 0
        for point in points:
            for i, member in enumerate(members):
                others = np.delete(members, i, axis=0)
                radius = np.sort(np.linalg.norm(others - member, axis=1))[k - 1]
                if np.linalg.norm(point - member) <= radius:
                    hits += 1
                    break
        return hits / len(points)

    return covered(generated, real), covered(real, generated)


@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_by_brute_force(k):
    real, generated = normal(40, 3, seed=6), 0.5 * normal(30, 3, seed=7) + 0.4
    want = brute_force(real.numpy(), generated.numpy(), k)
    assert 0 < want[0] < 1 or 0 < want[1] < 1
    assert precision_recall(real, generated, k) == pytest.approx(want)


def test_precision_and_recall_of_made_up_sets():
    points = normal(20, 4, seed=8).float() + 1000  # far from 0, where rounding is coarse
    assert precision_recall(points, points) == (1.0, 1.0)
    assert precision_recall(points, points + 100) == (0.0, 0.0)
    # A model that only knows one picture: all it draws is right, and it draws next to nothing.
    assert precision_recall(points, points[:1].repeat(9, 1)) == (1.0, pytest.approx(1 / 20))
    with pytest.raises(SuffuseError, match="take 4 pictures"):
        precision_recall(points, points[:3])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 10), st.floats(-5, 5))
def test_precision_and_recall_change_places_and_know_no_unit(seed, scale, shift):
    a, b = normal(12, 2, seed=seed), normal(15, 2, seed=seed + 1) + 0.5
    precision, recall = precision_recall(a, b)
    assert precision_recall(b, a) == (recall, precision)
    assert precision_recall(scale * a + shift, scale * b + shift) == (precision, recall)


def test_psnr_of_an_offset():
    pictures = torch.full((2, 3, 12, 12), 100, dtype=torch.uint8)
    others = pictures.clone()
    others[1] += 5
    got = psnr(others, pictures)
    assert got[0] == math.inf and got[1].item() == pytest.approx(20 * math.log10(255 / 5))


def test_ssim_agrees_with_scipy():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (1, 2, 17, 23)).astype(np.float64)
    b = np.clip(a + rng.normal(0, 30, a.shape), 0, 255)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2

    def blur(x: np.ndarray) -> np.ndarray:
        return gaussian_filter(x, 1.5, mode="mirror", truncate=3.5, axes=(2, 3))

    mean_a, mean_b = blur(a), blur(b)
    variances = blur(a * a) - mean_a**2 + blur(b * b) - mean_b**2
    together = blur(a * b) - mean_a * mean_b
    want = (2 * mean_a * mean_b + c1) * (2 * together + c2)
    want = (want / ((mean_a**2 + mean_b**2 + c1) * (variances + c2))).mean()
    assert ssim(torch.from_numpy(b), torch.from_numpy(a)).item() == pytest.approx(want, abs=1e-5)


def test_ssim_of_flat_pictures_and_of_small_ones():
    dark, bright = (torch.full((1, 3, 16, 16), level) for level in (50.0, 200.0))
    c1 = (0.01 * 255) ** 2
    want = (2 * 50 * 200 + c1) / (50**2 + 200**2 + c1)
    assert ssim(dark, bright).item() == pytest.approx(want, rel=1e-4)
    assert ssim(dark, dark).item() == pytest.approx(1)
    with pytest.raises(SuffuseError, match="11 x 11 pixels"):
        ssim(dark[..., :10], dark[..., :10])
