"""An SDE as a schedule: levels by their ratio, and what the network is told of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from suffuse.diffusion.grid import GridSpec, make_grid
from suffuse.diffusion.sde import VE, VP, SubVP
from suffuse.diffusion.sde_schedule import SDESchedule

sdes = st.one_of(
    st.builds(VP, st.floats(0.01, 2), st.floats(3, 30)),
    st.builds(SubVP, st.floats(0.01, 2), st.floats(3, 30)),
    st.builds(VE, st.floats(1e-3, 0.1), st.floats(1, 300)),
)


@settings(deadline=None)
@given(sdes, st.floats(1e-4, 1), st.integers(2, 2000))
def test_the_ratio_leads_back_to_the_level_and_its_time(sde, t, total):
    schedule, time = SDESchedule(sde, total), torch.tensor([t], dtype=torch.float64)
    level = sde.at(time)
    s = (level.sigma / level.alpha).flatten()
    alpha, sigma = schedule.split(s)
    assert float(alpha) == pytest.approx(float(level.alpha), rel=1e-6)
    assert float(sigma) == pytest.approx(float(level.sigma), rel=1e-6)
    told = schedule.label(np.zeros(1), s.numpy())
    assert float(told[0]) == pytest.approx(float(level.label), rel=1e-6)
    clean = schedule.split(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert (clean[0][0], clean[1][0]) == (1, 0) and schedule.finite() is schedule


@pytest.mark.parametrize("sde", [VP(), SubVP(), VE()])
def test_even_times_whatever_the_number_of_indices(sde):
    """The grid of n steps visits what `predictor_corrector` visits, and ends on the clean image."""
    times = torch.linspace(1, 1e-3, 7, dtype=torch.float64)
    for total in (1000, 1234):
        schedule = SDESchedule(sde, total)
        grid = make_grid(schedule, 7, GridSpec("linspace", rounded=False))
        want = sde.at(times)
        torch.testing.assert_close(grid.alpha[:-1], want.alpha.flatten())
        torch.testing.assert_close(grid.sigma[:-1], want.sigma.flatten())
        torch.testing.assert_close(grid.label.double(), want.label, rtol=1e-6, atol=0)
        assert (grid.alpha[-1], grid.sigma[-1]) == (1, 0)
    at = schedule.at(torch.tensor([0, 1233]))
    assert at.label[1] == pytest.approx(float(sde.at(torch.ones(())).label))
    curve = make_grid(schedule, 7, GridSpec("linspace", rounded=False, curve="karras"))
    torch.testing.assert_close(curve.sigma[0], want.sigma.flatten()[0], rtol=1e-5, atol=0)
