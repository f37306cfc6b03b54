"""The scores themselves: of sets of pictures by their features, and of pictures in pairs.

What torchmetrics has is computed by it, with features that our own networks made: its own would
need torchvision and downloads.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from suffuse.errors import SuffuseError
from suffuse.evaluation.statistics import Gaussian

NEIGHBOURS = 3  # what the papers report precision and recall with
_ROWS = 1024  # of a table of distances at a time
_WINDOW = 11  # pixels of SSIM's Gaussian window


class _Given(nn.Module):
    """The feature network of a metric that is handed features: it passes them on."""

    def __init__(self, width: int):
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet(reference: Gaussian, generated: Gaussian) -> float:
    """|mean - mean|^2 + trace of (A + B - 2 (A B)^1/2), the squared Fréchet distance (1706.08500).

    FID of points, sFID of places. Raises SuffuseError for features of different widths.
    """
    width = len(reference.mean)
    if len(generated.mean) != width:
        raise SuffuseError(
            f"statistics of {width} features cannot be compared with {len(generated.mean)}: they "
            "were made with another network"
        )
    image = _torchmetrics("image.fid")
    metric = image.FrechetInceptionDistance(feature=_Given(width))
    metric.persistent(True)
    metric.load_state_dict({**_state(reference, "real"), **_state(generated, "fake")})
    # Nothing more comes, but it takes the precision of its answer from the last that came.
    metric.update(torch.empty(0, width, dtype=torch.float64), real=False)
    return max(0.0, float(metric.compute()))


def _state(gaussian: Gaussian, name: str) -> dict[str, Tensor]:
    """The sums that two samples of this mean and covariance would leave in the metric."""
    mean, count = gaussian.mean, 2
    products = gaussian.covariance * (count - 1) + count * torch.outer(mean, mean)
    return {
        f"{name}_features_sum": mean * count,
        f"{name}_features_cov_sum": products,
        f"{name}_features_num_samples": torch.tensor(count),
    }


def inception_score(logits: Tensor, splits: int = 10) -> tuple[float, float]:
    """exp of the mean KL(p(y|x) || p(y)), mean and deviation over parts (1606.03498, section 4).

    logits (N, K). The parts are drawn by a seed of their own, so that the score is always the same.
    """
    image = _torchmetrics("image.inception")
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore", UserWarning)  # that it keeps what it is given
        torch.manual_seed(0)
        metric = image.InceptionScore(feature=_Given(logits.shape[1]), splits=splits)
        metric.update(logits.double())  # in float32 small probabilities vanish, and 0 log 0 is NaN
        if min(splits, len(logits)) == 1:
            return float(metric.compute()[0]), 0.0
        mean, deviation = metric.compute()
    return float(mean), float(deviation)


class PrecisionRecall(NamedTuple):
    """precision: share of generated pictures that look like real ones;  recall: the reverse."""

    precision: float
    recall: float


def precision_recall(real: Tensor, generated: Tensor, k: int = NEIGHBOURS) -> PrecisionRecall:
    """Shares of each set within the manifold of the other (1904.06991, eq. 1 and 2).

    real (N, D), generated (M, D): features. A manifold is all that is no farther from some member
    than that one's k-th neighbour. Raises SuffuseError for sets of k pictures or fewer.
    """
    if min(len(real), len(generated)) <= k:
        raise SuffuseError(f"precision and recall with {k} neighbours take {k + 1} pictures a set")
    centre = real.double().mean(0)  # the nearer to 0, the less is lost to rounding
    real, generated = real.double() - centre, generated.double() - centre
    return PrecisionRecall(
        _covered(generated, real, _radii(real, k)), _covered(real, generated, _radii(generated, k))
    )


def _radii(points: Tensor, k: int) -> Tensor:
    """Squared distance of each point (N, D) to its k-th neighbour, (N,)."""
    parts = []
    for rows in points.split(_ROWS):
        # The smallest distance is that of the point to itself.
        parts.append(_distances(rows, points).kthvalue(k + 1, dim=1).values)
    return torch.cat(parts)


def _covered(points: Tensor, members: Tensor, radii: Tensor) -> float:
    """The share of points (M, D) that lie within the ball of a member (N, D)."""
    inside = [
        (_distances(rows, members) <= radii).any(dim=1).double() for rows in points.split(_ROWS)
    ]
    return float(torch.cat(inside).mean())


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances (n, m). What rounding alone keeps apart, equal pictures, is at 0."""
    squares_a, squares_b = a.square().sum(1)[:, None], b.square().sum(1)
    found = squares_a + squares_b - 2 * a @ b.T
    return found.masked_fill(found <= 1e-12 * (squares_a + squares_b), 0.0)


def psnr(pictures: Tensor, targets: Tensor) -> Tensor:
    """10 log10(255^2 / mean squared error) of each pair (B, 3, H, W) of levels 0..255: (B,) dB.

    Infinite for equal pictures.
    """
    functional = _torchmetrics("functional.image")
    return functional.peak_signal_noise_ratio(
        pictures.float(), targets.float(), data_range=255.0, reduction="none", dim=(1, 2, 3)
    )


def ssim(pictures: Tensor, targets: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004) of each pair (B, 3, H, W) of levels 0..255: (B,).

    A Gaussian window of 11 pixels and deviation 1.5, by colour, mirrored at the border. Raises
    SuffuseError for pictures smaller than the window.
    """
    if min(pictures.shape[-2:]) < _WINDOW:
        raise SuffuseError(f"SSIM takes pictures of {_WINDOW} x {_WINDOW} pixels or more")
    functional = _torchmetrics("functional.image")
    return functional.structural_similarity_index_measure(
        pictures.float(), targets.float(), data_range=255.0, reduction="none"
    )


def require_metrics() -> None:
    """Raises SuffuseError where torchmetrics is not installed, before any work is done."""
    _torchmetrics("image.fid")


def _torchmetrics(module: str) -> Any:
    from importlib import import_module

    try:
        return import_module(f"torchmetrics.{module}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in (
            "torchmetrics",
            "lightning_utilities",
        ):
            raise
        raise SuffuseError(
            "these scores need torchmetrics: pip install 'suffuse[evaluate]'"
        ) from None
