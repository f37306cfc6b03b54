"""Tables against diffusers' schedulers, and against the public implementations' stored ones."""

from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from suffuse.diffusion.schedule import KINDS, Discrete, betas, zero_terminal_snr
from suffuse.errors import SuffuseError

PARITY = Path(__file__).parents[1] / "parity"

BOUNDS = [(0.00085, 0.012), (1e-4, 0.02)]  # Stable Diffusion's, DDPM's
THEIR_NAMES = {"cosine": "squaredcos_cap_v2", "quad": "scaled_linear"}


# ---- diffusers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("T", [1000, 37])
@pytest.mark.parametrize(("start", "end"), BOUNDS)
@pytest.mark.parametrize("kind", KINDS)
def test_float32_tables_are_those_of_diffusers(kind, start, end, T):
    theirs = diffusers.DDPMScheduler(T, start, end, THEIR_NAMES.get(kind, kind))
    ours = betas(kind, T, start, end, dtype=torch.float32)
    assert torch.equal(ours, theirs.betas)
    assert torch.equal(Discrete.from_betas(ours).alpha_bar.float(), theirs.alphas_cumprod)


@pytest.mark.parametrize("kind", KINDS)
def test_float64_tables_differ_from_diffusers_only_by_rounding(kind):
    theirs = diffusers.DDPMScheduler(1000, 0.00085, 0.012, THEIR_NAMES.get(kind, kind))
    ours = Discrete.from_betas(betas(kind, 1000, 0.00085, 0.012))
    assert ours.alpha_bar.dtype == torch.float64
    torch.testing.assert_close(
        ours.alpha_bar, theirs.alphas_cumprod.double(), rtol=2e-5, atol=1e-10
    )


@pytest.mark.parametrize("kind", KINDS)
def test_zero_terminal_snr_is_that_of_diffusers(kind):
    theirs = diffusers.DDPMScheduler(
        1000, 0.00085, 0.012, THEIR_NAMES.get(kind, kind), rescale_betas_zero_snr=True
    )
    table = betas(kind, 1000, 0.00085, 0.012, dtype=torch.float32)
    ours = Discrete.from_betas(table, zero_snr=True).alpha_bar
    torch.testing.assert_close(ours, theirs.alphas_cumprod.double(), rtol=2e-6, atol=0)
    assert ours[-1] == 0


@pytest.mark.parametrize(
    "scheduler",
    ["DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"],
)
def test_betas_given_as_a_list(scheduler):
    listed = [0.01, 0.02, 0.05, 0.4]
    theirs = getattr(diffusers, scheduler)(4, trained_betas=listed)
    ours = Discrete.from_betas(torch.tensor(listed))
    assert torch.equal(ours.alpha_bar.float(), theirs.alphas_cumprod)


def test_the_names_in_scheduler_files_are_known():
    assert torch.equal(betas("squaredcos_cap_v2"), betas("cosine"))


# ---- stored tables of the public implementations -----------------------------------------------


def test_compvis_tables():
    golden = load_file(PARITY / "ldm/samplers/io.safetensors")
    schedule = Discrete.from_betas(betas("scaled_linear", 1000, 0.00085, 0.012))
    # They compute in float64 and store in float32.
    torch.testing.assert_close(schedule.betas.float(), golden["table.betas"], rtol=2e-7, atol=0)
    torch.testing.assert_close(
        schedule.alpha_bar.float(), golden["table.alphas_cumprod"], rtol=2e-7, atol=0
    )


def test_compvis_betas_with_other_bounds():
    golden = load_file(PARITY / "ldm/losses/io.safetensors")
    ours = betas("scaled_linear", 1000, 0.0015, 0.0195)
    torch.testing.assert_close(ours.float(), golden["out.table_eps.betas"], rtol=2e-7, atol=0)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_guided_diffusion_tables(kind):
    golden = load_file(PARITY / "gd/diffusion/io.safetensors")
    # guided-diffusion scales DDPM's bounds by 1000 / T; here T = 100.
    ours = betas(kind, 100, 1e-3, 0.2)
    torch.testing.assert_close(ours, golden[f"table_{kind}.betas"], rtol=1e-13, atol=0)
    torch.testing.assert_close(
        Discrete.from_betas(ours).alpha_bar,
        golden[f"table_{kind}.alphas_cumprod"],
        rtol=1e-12,
        atol=0,
    )


def test_k_diffusion_sigmas():
    golden = load_file(PARITY / "kdiff/schedules/io.safetensors")
    schedule = Discrete(golden["in.alphas_cumprod"])
    level = schedule.at(torch.arange(schedule.T))
    sigmas = (level.sigma / level.alpha).flatten()
    # Noisiest first there, with a zero at the end.
    torch.testing.assert_close(sigmas.flip(0), golden["out.eps.all"][:-1], rtol=1e-5, atol=0)


# ---- closed forms ------------------------------------------------------------------------------


def test_closed_forms():
    T, start, end = 10, 0.01, 0.4
    expected = {
        "linear": np.linspace(start, end, T),
        "scaled_linear": np.linspace(start**0.5, end**0.5, T) ** 2,
        "quad": np.linspace(start**0.5, end**0.5, T) ** 2,
        "sigmoid": start + (end - start) / (1 + np.exp(-np.linspace(-6, 6, T))),
    }
    for kind, table in expected.items():
        np.testing.assert_allclose(betas(kind, T, start, end).numpy(), table, rtol=1e-12)


def test_cosine_follows_its_curve_until_the_cap():
    T = 1000
    alpha_bar = Discrete.from_betas(betas("cosine", T)).alpha_bar.numpy()
    angle = (np.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2
    curve = np.cos(angle[1:]) ** 2 / np.cos(angle[0]) ** 2
    np.testing.assert_allclose(alpha_bar[:-1], curve[:-1], rtol=1e-9)
    assert betas("cosine", T)[-1] == 0.999


def test_levels_keep_the_variance():
    schedule = Discrete.from_betas(betas("linear"))
    t = torch.tensor([0, 17, 999, 17])
    level = schedule.at(t)
    assert level.alpha.shape == level.sigma.shape == (4, 1, 1, 1)
    assert level.alpha.dtype == level.sigma.dtype == torch.float32
    assert torch.equal(level.label, t)
    torch.testing.assert_close(
        level.alpha.double() ** 2, schedule.alpha_bar[t].view(-1, 1, 1, 1), rtol=2e-7, atol=0
    )
    torch.testing.assert_close(level.alpha**2 + level.sigma**2, torch.ones(4, 1, 1, 1))


def test_pure_noise_at_zero_terminal_snr():
    level = Discrete.from_betas(betas("linear"), zero_snr=True).at(torch.tensor([999]))
    assert level.alpha.item() == 0
    assert level.sigma.item() == 1


@given(st.lists(st.floats(1e-4, 0.5), min_size=2, max_size=50))
@settings(max_examples=50, deadline=None)
def test_tables_of_any_betas(listed):
    table = torch.tensor(listed, dtype=torch.float64)
    schedule = Discrete.from_betas(table)
    assert len(listed) == schedule.T
    torch.testing.assert_close(schedule.betas, table, rtol=1e-9, atol=1e-12)
    shifted = zero_terminal_snr(schedule.alpha_bar)
    torch.testing.assert_close(shifted[0], schedule.alpha_bar[0])
    assert shifted[-1] == 0
    assert (shifted.diff() <= 0).all()
    assert (shifted <= schedule.alpha_bar + 1e-12).all()


# ---- bad input ---------------------------------------------------------------------------------


def test_unknown_kind_lists_the_known_ones():
    with pytest.raises(SuffuseError, match=r"'sine'.*scaled_linear.*squaredcos_cap_v2"):
        betas("sine")


@pytest.mark.parametrize(("start", "end"), [(0, 0.1), (0.2, 0.1), (0.1, 1.0), (float("nan"), 0.1)])
def test_bounds_outside_the_unit_interval(start, end):
    with pytest.raises(SuffuseError, match="0 < start <= end < 1"):
        betas("linear", 10, start, end)


def test_no_steps():
    with pytest.raises(SuffuseError, match="T=0"):
        betas("linear", 0)


@pytest.mark.parametrize(
    "table",
    [
        [0.5, 0.6],
        [1.2, 0.1],
        [0.5, -0.1],
        [float("nan"), 0.1],
        [[0.5, 0.4]],
        [],
        [1.0, float("nan")],
    ],
)
def test_tables_that_are_no_schedule(table):
    with pytest.raises(SuffuseError, match="alpha_bar"):
        Discrete(torch.tensor(table))
