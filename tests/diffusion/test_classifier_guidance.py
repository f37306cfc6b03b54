"""Classifier guidance: gradients in closed form, and how they enter a prediction."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from suffuse.diffusion.classifier_guidance import classifier, gradient, of_class, shifted
from suffuse.diffusion.prediction import KINDS, diffuse, predict, target
from suffuse.diffusion.samplers import SAMPLERS
from suffuse.diffusion.schedule import Level
from suffuse.errors import SuffuseError

LEVEL = Level(torch.tensor(0.8).double(), torch.tensor(0.6).double(), torch.tensor(300))
WEIGHT = torch.randn(5, 12, generator=torch.Generator().manual_seed(1)).double()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def logits(x: Tensor, label: Tensor) -> Tensor:
    """A linear classifier of five classes that looks at the time."""
    return x.flatten(1) @ WEIGHT.T.to(x.dtype) * (1 + label / 1000)


def quadratic(x: Tensor, level: Level) -> Tensor:
    return -(x - 1).square().sum((1, 2, 3)) / 2


@pytest.mark.parametrize("inference", [False, True])
def test_the_gradient_is_the_closed_form(inference):
    with torch.inference_mode(inference):
        x = normal(2, 3, 2, 2)
        torch.testing.assert_close(gradient(quadratic, x, LEVEL), 1 - x)
        labels = torch.tensor([4, 1])
        got = gradient(of_class(logits, labels), x, LEVEL)
        probability = logits(x, LEVEL.label).softmax(1)
        expected = 1.3 * (F.one_hot(labels, 5) - probability) @ WEIGHT
        torch.testing.assert_close(got.flatten(1), expected, rtol=1e-5, atol=1e-5)  # float32 logits


def test_scores_add_up_and_leave_the_prediction_alone():
    plain = predict(lambda x, level: x / 2, "eps")
    x = normal(2, 3, 2, 2)
    p = classifier(classifier(plain, quadratic, 2.0), quadratic, 0.5)(x, LEVEL)
    torch.testing.assert_close(p.score, 2.5 * (1 - x))
    assert torch.equal(p.x0, plain(x, LEVEL).x0) and torch.equal(p.eps, x / 2)
    assert classifier(plain, quadratic, 0.0) is plain


@pytest.mark.parametrize("kind", KINDS)
def test_a_shifted_prediction_still_explains_x(kind):
    raw, x = normal(2, 3, 2, 2, seed=1), normal(2, 3, 2, 2)
    plain = predict(lambda x, level: raw, kind)
    p = shifted(classifier(plain, quadratic))(x, LEVEL)
    torch.testing.assert_close(p.eps, plain(x, LEVEL).eps - 0.6 * (1 - x))
    torch.testing.assert_close(diffuse(p.x0, p.eps, LEVEL), x)
    torch.testing.assert_close(p.raw, target(kind, p.x0, p.eps, LEVEL))
    assert p.score is None
    assert shifted(plain)(x, LEVEL).raw is raw


def test_pure_noise_stays_finite():
    level = Level(torch.tensor(0.0), torch.tensor(1.0), torch.tensor(999))
    p = shifted(classifier(predict(lambda x, level: x, "v"), quadratic))(normal(1, 3, 2, 2), level)
    assert p.x0.isfinite().all() and p.eps.isfinite().all()


def test_only_ddpm_moves_its_mean():
    assert [name for name, entry in SAMPLERS.items() if entry.moves_mean] == ["ddpm"]


def test_bad_input():
    plain = predict(lambda x, level: x, "eps")
    with pytest.raises(SuffuseError, match="must be at least 0, not -1"):
        classifier(plain, quadratic, -1.0)
    with pytest.raises(SuffuseError, match="5 classes, 0 to 4; label 5 is none"):
        gradient(of_class(logits, torch.tensor([0, 5])), normal(2, 3, 2, 2), LEVEL)
    with pytest.raises(SuffuseError, match="label -1 is none"):
        gradient(of_class(logits, torch.tensor([0, -1])), normal(2, 3, 2, 2), LEVEL)
    with pytest.raises(ValueError, match="one number an image"):
        gradient(lambda x, level: x, normal(2, 3, 2, 2), LEVEL)
