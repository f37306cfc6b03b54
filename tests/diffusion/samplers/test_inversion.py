"""The inverse of DDIM: what comes out is what DDIM makes the image of, to rounding."""

import pytest
import torch
from closed_form import denoise as network
from gaussian import Gaussian
from hypothesis import given, settings
from hypothesis import strategies as st

from suffuse.diffusion.grid import GridSpec, make_grid
from suffuse.diffusion.prediction import predict
from suffuse.diffusion.samplers import SAMPLERS, ddim_inverse, ddim_reverse
from suffuse.diffusion.schedule import Discrete, Flow, betas

TABLE = betas("scaled_linear", 1000, 0.00085, 0.012)
SCHEDULES = {
    "v": Discrete.from_betas(TABLE, zero_snr=True),  # its noisiest level holds no signal
    "eps": Discrete.from_betas(TABLE),
    "flow": Flow(),
}
SPECS = {"v": GridSpec("trailing"), "eps": GridSpec(offset=1, final="first"), "flow": GridSpec()}


def back(denoiser, noise, grid):
    """Where DDIM without noise of its own ends."""
    *_, last = SAMPLERS["ddim"](denoiser, noise, grid, None)
    return last.x


@pytest.mark.parametrize("kind", SCHEDULES)
@given(seed=st.integers(0, 1000), n=st.integers(10, 16))
@settings(max_examples=4, deadline=None)
def test_a_network_gives_the_image_back(kind, seed, n):
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed)).double()
    grid = make_grid(SCHEDULES[kind], n, SPECS[kind])
    denoiser = predict(lambda x, level: 0.3 * network(x, level.label), kind)
    *_, noise = ddim_inverse(denoiser, x, grid, rounds=50, tolerance=1e-12)
    assert noise.i == n - 1
    torch.testing.assert_close(back(denoiser, noise.x, grid), x, atol=1e-8, rtol=0)
    # One row is itself alone.
    *_, alone = ddim_inverse(denoiser, x[1:], grid, rounds=50, tolerance=1e-12)
    torch.testing.assert_close(alone.x, noise.x[1:], atol=1e-9, rtol=0)


def test_gaussian_data_in_closed_form():
    """The marginals are known: image and noise lie at the same place of theirs; few rounds do."""
    data = Gaussian.correlated(12, spread=0.5, mean=0.2)
    x = data.mean + torch.linalg.cholesky(data.covariance) @ torch.linspace(-1, 1, 12).double()
    x = x.view(1, 3, 2, 2)
    grid = make_grid(SCHEDULES["eps"], 100, SPECS["eps"])
    *_, noise = ddim_inverse(data.denoise, x, grid)
    error = float((back(data.denoise, noise.x, grid) - x).abs().max())
    *_, plain = ddim_reverse(data.denoise, x, grid)
    assert error < 5e-3
    assert error < 0.2 * float((back(data.denoise, plain.x, grid) - x).abs().max())
    # The flow of the ODE keeps how far a point is from the mean, measured by the covariance.
    start = data.marginal(grid.level(0))
    end = data.marginal(grid.level(len(grid)))
    far = [float(d.log_prob(d.mean) - d.log_prob(p.flatten())) for d, p in
           ((start, noise.x), (end, x))]  # fmt: skip
    assert far[0] == pytest.approx(far[1], rel=0.1)


def test_what_cannot_be_turned_round_stays_finite():
    """A denoiser that jumps about has no inverse: the nearest that was found is kept."""
    grid = make_grid(SCHEDULES["v"], 5, SPECS["v"])
    denoiser = predict(lambda x, level: 9 * torch.sin(9 * x), "v")
    *_, noise = ddim_inverse(denoiser, torch.ones(1, 3, 2, 2), grid)
    assert noise.x.isfinite().all()


def test_a_row_is_itself_alone_though_it_is_done_before_the_others():
    x = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(1)).double()
    x *= torch.tensor([0.01, 1.0, 3.0]).view(3, 1, 1, 1)  # the small one needs fewer rounds
    grid = make_grid(SCHEDULES["eps"], 12, SPECS["eps"])
    passes = []

    def counted(x, level):
        passes.append(len(x))
        return predict(lambda x, level: 0.3 * network(x, level.label), "eps")(x, level)

    whole = list(ddim_inverse(counted, x, grid))
    taken = []
    for row in range(3):
        passes.clear()
        for step, alone in zip(whole, ddim_inverse(counted, x[row : row + 1], grid)):
            torch.testing.assert_close(alone.x[0], step.x[row], atol=1e-9, rtol=0)
            torch.testing.assert_close(alone.x0[0], step.x0[row], atol=1e-9, rtol=0)
        taken.append(len(passes))
    assert len(set(taken)) > 1
