"""Which levels stage two trains at, and that one process or two, stopped or not, draw the same."""

import math

import pytest
import torch
from scipy import stats

from suffuse.diffusion.loss import min_snr_weight, p2_weight
from suffuse.diffusion.schedule import Discrete, Flow, betas
from suffuse.errors import SuffuseError
from suffuse.training.draw import Draw
from suffuse.training.noising import REMEMBERED, Levels, Noising

SCHEDULE = Discrete.from_betas(betas("scaled_linear", 20))


def levels(**options):
    return Levels(Noising(**options), SCHEDULE)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("power", [1.0, 0.4])
def test_a_power_below_one_prefers_noise(power):
    t, weight = levels(power=power).draw(20_000, generator())
    assert weight is None
    # The distribution function of u^power is x^(1 / power).
    found = stats.kstest((t.numpy() + 0.5) / 20, lambda x: x ** (1 / power))
    assert found.statistic < 0.03 + 1 / 20


@pytest.mark.parametrize(
    "options", [{}, {"timesteps": "logit-normal", "mean": 0.5}, {"power": 0.5, "offset": 0.1}]
)
def test_two_processes_draw_the_halves_of_one(options):
    whole = levels(**options)
    like = torch.empty(8, 2, 4, 4)
    drawing = Draw(3, slice(0, 8), 8)
    t, eps = whole.draw(8, drawing)[0], whole.noise(like, drawing)
    for rows in (slice(0, 4), slice(4, 8)):
        drawing = Draw(3, rows, 8)
        mine = whole.draw(4, drawing)[0], whole.noise(like[rows], drawing)
        assert torch.equal(mine[0], t[rows]) and torch.equal(mine[1], eps[rows])


def test_offset_moves_whole_channels():
    like = torch.zeros(512, 3, 8, 8)
    plain = levels().noise(like, generator())
    moved = levels(offset=0.5).noise(like, generator()) - plain
    assert torch.allclose(moved, moved[..., :1, :1].expand_as(moved), atol=1e-6)
    assert moved[..., 0, 0].std().item() == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("kind", ["eps", "v"])
def test_weights_are_those_of_the_papers(kind):
    level = SCHEDULE.at(torch.arange(20))
    assert levels().weight(level, kind) is None
    assert torch.equal(levels(weight="p2").weight(level, kind), p2_weight(level, kind))
    assert torch.equal(
        levels(weight="min-snr", gamma=3.0).weight(level, kind), min_snr_weight(level, kind, 3.0)
    )


def test_importance_learns_where_losses_are_large_and_stays_unbiased():
    net = levels(timesteps="importance")
    true = torch.linspace(0.1, 2, 20)
    for _ in range(REMEMBERED):
        t, weight = net.draw(20, generator())
        assert weight is None  # every step is met before any is preferred
        net.remember(torch.arange(20), true)
    t, weight = net.draw(20_000, generator(1))
    assert weight is not None
    share = torch.bincount(t, minlength=20) / 20_000
    want = 0.999 * true / true.sum() + 0.001 / 20
    assert torch.allclose(share, want.float(), atol=1e-3)
    assert (weight * true[t]).mean().item() == pytest.approx(true.mean().item(), rel=1e-3)


def test_the_memory_is_part_of_a_checkpoint():
    net, again = levels(timesteps="importance"), levels(timesteps="importance")
    for _ in range(REMEMBERED):
        net.remember(torch.arange(20), torch.rand(20, generator=generator()))
    again.load_state_dict(net.state_dict())
    assert torch.equal(net.draw(64, generator(2))[0], again.draw(64, generator(2))[0])


def test_refuses_what_cannot_be():
    with pytest.raises(SuffuseError, match="above 0"):
        Noising(power=0)


class Velocity:
    """The best there is for standard normal data: the mean of `eps - x0` given x."""

    def __call__(self, x, label, context):
        sigma = (label / 1000).view(-1, 1, 1, 1)
        return (2 * sigma - 1) * x / ((1 - sigma) ** 2 + sigma**2)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_best_flow_has_the_loss_that_must_remain(shift):
    """`1 / (alpha^2 + sigma^2)` at each level; its mean over even times is pi / 2."""
    drawing = Levels(Noising(), Flow(shift=shift))
    x0 = torch.randn(2000, 2, 4, 4, generator=generator(1))
    losses = drawing.losses_of(Velocity(), x0, None, "flow", generator(2))
    level = Flow(shift=shift).at(drawing.draw(2000, generator(2))[0])
    remaining = 1 / (level.alpha**2 + level.sigma**2).flatten()
    assert losses.mean().item() == pytest.approx(remaining.mean().item(), rel=0.02)
    assert (losses / remaining).std().item() == pytest.approx((2 / 32) ** 0.5, rel=0.1)
    if shift == 1:
        assert remaining.mean().item() == pytest.approx(math.pi / 2, rel=0.01)


def test_a_score_looks_at_the_same_levels_and_noise_every_time():
    drawing, images = Levels(Noising(), Flow()), torch.zeros(8, 2, 4, 4)
    (t, eps), (again, same) = drawing.evenly(images), drawing.evenly(images)
    assert t.tolist() == [62, 187, 312, 437, 562, 687, 812, 937] and torch.equal(t, again)
    assert torch.equal(eps, same) and eps.shape == images.shape and eps.std() > 0.8


@pytest.mark.parametrize(
    "options", [{"weight": "min-snr"}, {"weight": "p2"}, {"timesteps": "logit-normal"}]
)
def test_weights_and_densities_work_on_a_flow(options):
    """From pure noise, which has no signal, to the cleanest level."""
    drawing = Levels(Noising(**options), Flow())
    level = Flow().at(torch.arange(1000))
    weight = drawing.weight(level, "flow")
    assert weight is None or (weight.isfinite().all() and weight.min() >= 0 and weight.max() > 0.1)
    t, _ = drawing.draw(1000, generator())
    assert t.min() >= 0 and t.max() <= 999
    x0 = torch.randn(8, 2, 4, 4, generator=generator(1))
    assert drawing.losses_of(Velocity(), x0, None, "flow", generator(2)).isfinite().all()
