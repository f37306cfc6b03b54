"""Best of: many are drawn, those nearest to the prompt are kept, and each stands by its seed."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
from sight import clip, saved

import suffuse
from suffuse.errors import SuffuseError
from suffuse.evaluation.prompts import BestOf
from suffuse.systems import generate
from suffuse.systems.explain import explain
from suffuse.systems.metadata import Origin, describe, png_bytes, read_parameters
from suffuse.systems.request import Request

CLIP = clip()
ASKED = {"seed": 5, "steps": 2, "guidance": 2.0}


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny.pipeline().save_pretrained(folder)
    return suffuse.load(folder, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def drawn(system):
    """Four pictures by their seeds, nearest to the prompt first."""
    pictures = {5 + i: p for i, p in enumerate(system.generate("a red apple", **ASKED, n=4))}
    nearness = CLIP.images(list(pictures.values())) @ CLIP.texts(["a red apple"])[0]
    order = nearness.argsort(descending=True).tolist()
    return {seed: pictures[seed] for seed in np.array(list(pictures))[order].tolist()}


@pytest.mark.parametrize("together", [1, 3, 4])
def test_keeps_the_nearest_in_their_order(system, drawn, together):
    steps = list(
        system.stream(
            Request("a red apple", **ASKED, n=2, best_of=4), judge=CLIP, together=together
        )
    )
    kept = [step for step in steps if step.result is not None]
    assert [step.seed for step in kept] == list(drawn)[:2]
    assert [step.image_index for step in kept] == [seed - 5 for seed in list(drawn)[:2]]
    for step in kept:
        assert np.abs(np.int16(step.result) - np.int16(drawn[step.seed])).max() <= 1
    assert len(steps) == 4 * 2  # a step is told once, whatever becomes of the picture


def test_a_kept_picture_is_made_again_from_what_it_says(system, drawn, tmp_path):
    asked = system.resolve(Request("a red apple", **ASKED, best_of=4))
    (kept,) = system.generate(asked, judge=CLIP)
    seed = next(iter(drawn))
    about = describe(asked, Origin("tiny")).for_image(seed, kept.size)
    (tmp_path / "kept.png").write_bytes(png_bytes(kept, about))
    again = read_parameters(tmp_path / "kept.png").to_request()
    assert (again.seed, again.n, again.best_of) == (seed, 1, None)
    (picture,) = system.generate(again)
    assert picture.tobytes() == kept.tobytes()


def test_requests_of_one_batch_choose_each_for_themselves(system, drawn):
    both = [
        system.resolve(Request("a red apple", **ASKED, best_of=4)),
        system.resolve(Request("a red apple", **ASKED, n=2)),
    ]
    found = list(generate.stream(system, both, together=6, judge=CLIP))
    kept = [(which, step.seed) for which, step in found if step.result is not None]
    assert sorted(kept) == [(0, next(iter(drawn))), (1, 5), (1, 6)]


def test_prompts_are_answered_by_the_best(system, drawn, tmp_path):
    measured = BestOf(system, 4, str(saved(tmp_path)), "cpu")
    (picture,) = measured.generate("a red apple", **ASKED, sampler=None)
    assert np.abs(np.int16(picture) - np.int16(next(iter(drawn.values())))).max() <= 1


def test_nothing_is_explained_that_is_chosen(system):
    with pytest.raises(SuffuseError, match="leave best_of out"):
        explain(system, Request("a red apple", best_of=2))
