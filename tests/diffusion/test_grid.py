"""Grids against diffusers' and k-diffusion's tables, CompVis' indices, and their own rules."""

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from suffuse.diffusion.grid import NAMES, GridSpec, make_grid
from suffuse.diffusion.schedule import Discrete, betas, zero_terminal_snr
from suffuse.diffusion.spacing import beta_quantile
from suffuse.errors import SuffuseError

PARITY = Path(__file__).parents[1] / "parity"
KDIFF = load_file(PARITY / "kdiff/schedules/io.safetensors")
COMPVIS = load_file(PARITY / "ldm/samplers/io.safetensors")

SCHEDULE = Discrete.from_betas(betas("scaled_linear", 1000, 0.00085, 0.012))
ZERO_SNR = Discrete(zero_terminal_snr(SCHEDULE.alpha_bar))
KARRAS = GridSpec("linspace", curve="karras", min_s=0.0292, max_s=14.6146, terminal="clamp")


def ratios(grid):
    return (grid.sigma / grid.alpha).tolist()


# ---- what other programs computed ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("karras", {}),
        ("karras_rho3", {"rho": 3.0}),
        ("exponential", {"curve": "exponential"}),
        ("polyexponential", {"curve": "polyexponential", "rho": 0.7}),
    ],
)
def test_curves_are_kdiffusions(name, changes):
    spec = GridSpec(**{**vars(KARRAS), **changes})
    assert ratios(make_grid(SCHEDULE, 10, spec)) == pytest.approx(
        KDIFF[f"out.{name}"].tolist(), rel=1e-5
    )


def test_spacing_is_kdiffusions():
    """`DiscreteSchedule.get_sigmas(n)`: even in the index, interpolated in log s."""
    schedule = Discrete(KDIFF["in.alphas_cumprod"])
    grid = make_grid(schedule, 10, GridSpec("linspace", rounded=False, between="log_s"))
    assert ratios(grid) == pytest.approx(KDIFF["out.eps.sigmas"].tolist(), rel=1e-5)


def test_labels_are_kdiffusions():
    """`sigma_to_t`, with fractions and without."""
    schedule = Discrete(KDIFF["in.alphas_cumprod"])
    grid = make_grid(schedule, 2, GridSpec())
    found = [float(grid.of(s).label) for s in KDIFF["in.sigma"].tolist()]
    assert found == pytest.approx(KDIFF["out.eps.t_of_sigma"].tolist(), rel=1e-5)
    assert [round(t) for t in found] == KDIFF["out.eps_quantized.t_of_sigma"].tolist()


@pytest.mark.parametrize("n", [5, 7, 50])
def test_uniform_is_compvis(n):
    """Seven steps asked for give eight there."""
    schedule = Discrete(COMPVIS["table.alphas_cumprod"])
    grid = make_grid(schedule, n, GridSpec("uniform", offset=1, final="first"))
    assert grid.label.flip(0).tolist() == COMPVIS[f"out.ddim_{n}_steps"].tolist()


def test_quad_is_compvis():
    schedule = Discrete(COMPVIS["table.alphas_cumprod"])
    grid = make_grid(schedule, 5, GridSpec("quad", offset=1, final="first"))
    assert grid.label.flip(0).tolist() == COMPVIS["out.quad_steps"].tolist()
    before = (grid.alpha[1:] ** 2).flip(0)
    assert before.tolist() == pytest.approx(COMPVIS["out.alphas_prev"].tolist(), rel=1e-6)


def test_beta_quantiles_are_scipys():
    q = np.linspace(0, 1, 101)
    assert beta_quantile(q, 0.6) == pytest.approx(scipy.stats.beta.ppf(q, 0.6, 0.6), abs=1e-12)


# ---- spacings by hand ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "n", "labels"),
    [
        (GridSpec("leading"), 4, [750, 500, 250, 0]),
        (GridSpec("leading", offset=1), 3, [667, 334, 1]),
        (GridSpec("trailing"), 4, [999, 749, 499, 249]),
        (GridSpec("trailing"), 3, [999, 666, 332]),
        (GridSpec("linspace"), 3, [999, 500, 0]),
        (GridSpec("linspace", rounded=False), 3, [999, 499.5, 0]),
        (GridSpec("linspace", drop_cleanest=True), 3, [999, 666, 333]),
        (GridSpec("leading", drop_cleanest=True), 3, [750, 500, 250]),
        (GridSpec("trailing", drop_cleanest=True), 4, [999, 749, 499, 249]),
        (GridSpec("distilled"), 4, [999, 759, 499, 259]),
        (GridSpec("distilled", taught=10), 3, [999, 699, 399]),
        (GridSpec("leading"), 1, [0]),
        (GridSpec("trailing"), 1, [999]),
    ],
)
def test_spacings(spec, n, labels):
    grid = make_grid(SCHEDULE, n, spec)
    assert grid.label.tolist() == labels
    assert len(grid) == n and grid.whole == n


def test_min_lambda_leaves_out_the_noisiest():
    lam = -((1 - SCHEDULE.alpha_bar) / SCHEDULE.alpha_bar).sqrt().log()
    used = int((lam >= -1.5).sum())
    spec = GridSpec("linspace", min_lambda=-1.5)
    assert make_grid(SCHEDULE, 5, spec).label[0] == used - 1


@pytest.mark.parametrize(
    ("label", "expected"), [("index", 2), ("nearest", 0), ("floor", 0), ("quarter_log_s", 2)]
)
def test_what_the_network_is_told(label, expected):
    spec = GridSpec("linspace", curve="karras", label=label)
    grid = make_grid(SCHEDULE, 5, spec)
    fractions = int((grid.label[1:-1] % 1 != 0).sum())
    assert fractions >= expected if expected else fractions == 0
    if label == "quarter_log_s":
        assert grid.label.tolist() == pytest.approx([math.log(s) / 4 for s in ratios(grid)[:-1]])


# ---- where steps end, and where sampling starts --------------------------------------------------


def test_finals():
    first = math.sqrt(1 / float(SCHEDULE.alpha_bar[0]) - 1)
    one, low, bare = (
        make_grid(SCHEDULE, 4, GridSpec(final=final)) for final in ("one", "first", "first_s")
    )
    assert (float(one.alpha[-1]), float(one.sigma[-1])) == (1.0, 0.0)
    assert float(low.alpha[-1]) ** 2 == pytest.approx(float(SCHEDULE.alpha_bar[0]), rel=1e-12)
    assert (float(bare.alpha[-1]), float(bare.sigma[-1])) == (1.0, pytest.approx(first))
    assert one.level(4).label == 0


def test_start():
    assert make_grid(SCHEDULE, 4, GridSpec()).start == 1.0
    grid = make_grid(SCHEDULE, 4, GridSpec("linspace", start="sigma"))
    assert grid.start == pytest.approx(math.sqrt(1 - float(SCHEDULE.alpha_bar[-1])), rel=1e-9)


def test_steps_of_a_stride_land_between_levels():
    """diffusers' DDIM goes from t to t - 1000 // n, also where the next level is elsewhere."""
    grid = make_grid(SCHEDULE, 7, GridSpec("trailing", landing="stride"))
    assert grid.label.tolist() == [999, 856, 713, 570, 428, 285, 142]
    assert [float(grid.target(i).label) for i in range(6)] == [857, 714, 571, 428, 286, 143]
    assert float(grid.source(1).label) == 856 + 142
    assert float(grid.target(6).sigma) > 0  # 142 - 142 = 0 is still a step of the schedule
    grid = make_grid(SCHEDULE, 5, GridSpec("leading", landing="stride"))
    assert [float(grid.target(i).alpha) for i in range(5)] == pytest.approx(grid.alpha[1:].tolist())


def test_zero_terminal_snr():
    kept = make_grid(ZERO_SNR, 4, GridSpec("trailing"))
    assert (float(kept.alpha[0]), float(kept.sigma[0])) == (0.0, 1.0)
    clamped = make_grid(ZERO_SNR, 4, GridSpec("trailing", terminal="clamp"))
    assert float(clamped.alpha[0]) == pytest.approx(2**-12)
    assert kept.alpha[1:].tolist() == clamped.alpha[1:].tolist()
    with pytest.raises(SuffuseError, match="cannot run from s = inf"):
        make_grid(ZERO_SNR, 4, GridSpec(curve="karras"))


# ---- any grid ------------------------------------------------------------------------------------


@given(st.sampled_from(NAMES), st.integers(1, 400), st.booleans())
@settings(max_examples=120, deadline=None)
def test_any_grid_descends_on_the_schedule(name, n, zero):
    spec = GridSpec(terminal="clamp", bounds="table").named(name)
    grid = make_grid(ZERO_SNR if zero else SCHEDULE, n, spec)
    assert len(grid) == n and grid.alpha.dtype == torch.float64
    assert (grid.sigma.diff() < 0).all() and (grid.alpha.diff() > 0).all()
    assert (grid.alpha**2 + grid.sigma**2 - 1).abs().max() < 1e-12
    assert (grid.label >= 0).all() and (grid.label <= 999).all()
    assert (grid.label.diff() < 0).all()
    for i in (0, n // 2, n - 1):  # a label names the level that the schedule has there
        t, level = float(grid.label[i]), grid.level(i)
        there = grid.of(float(level.sigma / level.alpha))
        assert float(there.label) == pytest.approx(t, abs=2e-3)
        assert float(there.alpha) == pytest.approx(float(level.alpha), rel=1e-9)


@given(st.integers(1, 60), st.floats(0.01, 1))
@settings(max_examples=80, deadline=None)
def test_tails(n, strength):
    grid = make_grid(SCHEDULE, n, GridSpec("trailing"))
    keep = int(n * strength)
    if keep == 0:
        with pytest.raises(SuffuseError, match="leaves none"):
            grid.tail(strength)
        return
    tail = grid.tail(strength)
    assert (len(tail), tail.whole) == (keep, n)
    assert tail.label.tolist() == grid.label[n - keep :].tolist()
    assert tail.sigma.tolist() == grid.sigma[n - keep :].tolist()


def test_a_word_changes_the_grid():
    spec = GridSpec("leading", landing="stride", final="first")
    assert spec.named("trailing") == GridSpec("trailing", landing="stride", final="first")
    assert spec.named("karras") == GridSpec("leading", curve="karras", final="first")
    assert spec.named("karras").named("linspace").curve is None
    with pytest.raises(SuffuseError, match="unknown grid 'odd': choose one of leading, trailing"):
        spec.named("odd")


@pytest.mark.parametrize(
    ("n", "spec", "words"),
    [
        (0, GridSpec(), "at least 1, not 0"),
        (1001, GridSpec(), "has 1000 steps; 1001 are too many"),
        (1000, GridSpec(offset=1), "offset 1 leave the schedule"),
        (3, GridSpec("uniform", offset=1), "leave the schedule"),
        (1000, GridSpec("linspace", drop_cleanest=True), "too many for 'linspace'"),
        (51, GridSpec("distilled"), "distilled on 50 steps"),
        (5, GridSpec(curve="karras", min_s=2.0, max_s=1.0), "cannot run from s = 1 to s = 2"),
    ],
)
def test_refusals(n, spec, words):
    with pytest.raises(SuffuseError, match=words):
        make_grid(SCHEDULE, n, spec)
