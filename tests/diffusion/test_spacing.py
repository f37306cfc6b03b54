"""Respacing strings against guided-diffusion's `space_timesteps`, and what any of them gives."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suffuse.diffusion.spacing import respacing
from suffuse.errors import SuffuseError

CASES = json.loads((Path(__file__).parents[1] / "parity/gd/respace/respace.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['spec']} of {case['steps']}")
def test_respacing_is_that_of_guided_diffusion(case):
    if "error" in case:
        with pytest.raises(SuffuseError):
            respacing(case["spec"], case["steps"])
    else:
        assert list(respacing(case["spec"], case["steps"])) == case["used"]


def test_fast27_is_glides():
    sections = respacing("10,10,3,2,2", 1000)
    fast = respacing("fast27", 1000)
    assert len(fast) == 27 and fast[:-1] == sections[:-1]
    assert (sections[-1], fast[-1]) == (999, 997)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=6).filter(any), st.integers(80, 2000))
def test_sections_hold_what_was_asked(counts, total):
    kept = respacing(",".join(map(str, counts)), total)
    assert list(kept) == sorted(set(kept)) and kept[0] >= 0 and kept[-1] < total
    start = 0
    for i, count in enumerate(counts):
        size = total // len(counts) + (i < total % len(counts))
        inside = [t for t in kept if start <= t < start + size]
        assert len(inside) == count
        if count > 1:
            assert (inside[0], inside[-1]) == (start, start + size - 1)
        start += size


@pytest.mark.parametrize("spec", ["", "ddim", "fast", "ten", "10,,5", "-5", "10;5", "ddim5,5", "0"])
def test_unreadable_strings_get_the_known_forms(spec):
    with pytest.raises(SuffuseError, match=r"250.*ddim25.*10,15,20.*fast27"):
        respacing(spec, 1000)


def test_too_many_steps():
    with pytest.raises(SuffuseError, match="cannot keep 20 of 10 steps"):
        respacing("20", 10)
    with pytest.raises(SuffuseError, match=r"30 of 25 steps \(section 2 of 4"):
        respacing("1,30,1,1", 100)
    with pytest.raises(SuffuseError, match="no whole stride keeps 333 of 1000 steps"):
        respacing("ddim333", 1000)
    with pytest.raises(SuffuseError, match="has 10 steps; 20 are too many"):
        respacing("ddim20", 10)
