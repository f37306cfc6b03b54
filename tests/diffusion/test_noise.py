"""One generator an image: the same image alone or in any batch."""

import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor
from hypothesis import given, settings
from hypothesis import strategies as st

from suffuse.diffusion.noise import Noise, slerp
from suffuse.errors import SuffuseError

SHAPE = (4, 6, 5)
seeds = st.integers(0, 2**63 - 1)


@given(st.lists(seeds, min_size=1, max_size=5), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_an_image_is_the_same_alone_and_in_any_batch(chosen, steps):
    together = Noise(chosen, SHAPE)
    alone = [Noise([seed], SHAPE) for seed in chosen]
    for _ in range(steps):
        draw = together()
        assert draw.shape == (len(chosen), *SHAPE)
        for i, noise in enumerate(alone):
            assert torch.equal(draw[i : i + 1], noise())


@pytest.mark.parametrize("shape", [(4, 64, 64), (3, 2, 2), (1, 1, 1)])
def test_the_numbers_are_those_of_diffusers_generators(shape):
    chosen = [0, 1234, 2**63 - 1]
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in chosen]
    noise = Noise(chosen, shape)
    for _ in range(2):
        assert torch.equal(noise(), randn_tensor((3, *shape), generator=generators))


def test_draws_are_standard_normal_and_differ():
    noise = Noise([1, 2], (4, 64, 64))
    first, second = noise(), noise()
    values = torch.cat([first, second]).flatten()
    assert abs(values.mean().item()) < 0.02
    assert abs(values.std().item() - 1) < 0.02
    for a, b in ((first[0], first[1]), (first[0], second[0])):
        correlation = torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]
        assert abs(correlation.item()) < 0.05


def test_half_precision_is_the_same_noise_rounded():
    full, half = Noise([3], SHAPE)(), Noise([3], SHAPE, dtype=torch.bfloat16)()
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, full.bfloat16())


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    Noise([3], SHAPE)()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_out_of_range(seed):
    with pytest.raises(SuffuseError, match=str(seed)):
        Noise([0, seed], SHAPE)


def test_no_seeds():
    with pytest.raises(SuffuseError, match="at least one seed"):
        Noise([], SHAPE)


# ---- between two noises ------------------------------------------------------------------------


@given(st.integers(0, 1000), st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_slerp_turns_at_an_even_pace(seed, share):
    a, b = torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(seed)).double()
    a, b = (v / v.flatten(1).norm(dim=1).view(-1, 1, 1, 1) for v in (a, b))
    c = slerp(a, b, share)
    angle = (a * b).sum((1, 2, 3)).acos()
    torch.testing.assert_close((c * c).sum((1, 2, 3)), torch.ones(3).double())
    torch.testing.assert_close((a * c).sum((1, 2, 3)), (share * angle).cos())
    torch.testing.assert_close((b * c).sum((1, 2, 3)), ((1 - share) * angle).cos())


def test_slerp_at_its_ends_and_without_an_angle():
    a, b = torch.randn(2, 2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)
    torch.testing.assert_close(slerp(a, a, 0.3), a)
    torch.testing.assert_close(slerp(a, -a, 0.25), a / 2)
