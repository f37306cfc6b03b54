"""Several requests as one batch: every picture is the one that its request alone gives."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import tiny
from PIL import Image
from test_ddpm import model as ddpm_model
from test_score_sde import made as score_sde
from test_sr3 import model as upscaler

import suffuse
from suffuse.errors import SuffuseError
from suffuse.systems import generate, together
from suffuse.systems.ddpm import DDPM
from suffuse.systems.request import Request
from suffuse.systems.sr3 import SuperResolution

LONG = ", ".join(["a cat on a hat"] * 30)  # more than one window of tokens
MIXED = [
    Request("a cat", steps=3, seed=5, guidance=4.0),
    Request("a dog on a mat", "cats", steps=3, seed=9, n=2, guidance=2.5),
    Request("a hat", steps=3, seed=2**40),
]


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    tiny.pipeline().save_pretrained(folder)
    return suffuse.load(folder, device="cpu", dtype="float32")


def levels(picture):
    return np.asarray(picture).astype(int)


def results(progress):
    """The finished pictures by request and image."""
    return {
        (which, step.image_index): (step.seed, levels(step.result))
        for which, step in progress
        if step.result is not None
    }


def check_alone(system, requests):
    """All of them together against each on its own, through another door."""
    found = results(together.stream(system, requests))
    assert len(found) == sum(request.n for request in requests)
    for which, request in enumerate(requests):
        for step in system.stream(request):
            if step.result is not None:
                seed, picture = found[which, step.image_index]
                assert seed == step.seed == request.seed + step.image_index
                # A step of one network call may differ in the last digit, a grey level may not.
                assert np.abs(picture - levels(step.result)).max() <= 1
    return found


@pytest.mark.parametrize("sampler", ["ddim", "euler_a", "dpm++_2m_sde", "heun"])
def test_requests_of_one_batch_are_what_they_are_alone(system, sampler):
    found = check_alone(system, [replace(request, sampler=sampler) for request in MIXED])
    for a, b in combinations(found.values(), 2):
        assert np.abs(a[1] - b[1]).max() > 10  # no row stands for another


def test_prompts_negatives_and_guidance_tell_rows_of_one_seed_apart(system):
    one = Request("a cat", "a dog", steps=3, seed=5, guidance=4.0)
    others = [replace(one, prompt="a hat"), replace(one, negative=""), replace(one, guidance=9.0)]
    found = check_alone(system, [one, *others, one])
    same = found[0, 0][1]
    assert (found[4, 0][1] == same).all()
    assert all((found[i, 0][1] != same).any() for i in (1, 2, 3))


def test_steps_come_for_every_request_and_previews_are_its_own(system):
    seen = {}
    for which, step in together.stream(system, MIXED):
        assert step.steps == 3
        seen.setdefault((which, step.image_index), []).append(step.i)
        if step.i == 1:
            preview = levels(step.preview())
            alone = list(system.stream(generate.alone(MIXED[which], step.image_index)))
            assert np.abs(preview - levels(alone[1].preview())).max() <= 1
    assert seen == {k: [0, 1, 2] for k in [(0, 0), (1, 0), (1, 1), (2, 0)]}


def test_pictures_and_masks_to_start_from(system):
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)) for _ in range(2)]
    mask = Image.fromarray(np.where(np.arange(16) < 8, 255, 0).astype(np.uint8)[None].repeat(16, 0))
    asked = [Request("a cat", steps=4, seed=i, image=p) for i, p in enumerate(pictures)]
    check_alone(system, asked)
    found = check_alone(system, [replace(request, mask=mask) for request in asked])
    for which, picture in enumerate(pictures):
        assert (found[which, 0][1][:, 8:] == levels(picture)[:, 8:]).all()


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 4},
        {"sampler": "euler"},
        {"width": 32},
        {"guidance": 1.0},
        {"rescale": 0.5},
        {"clip_skip": 1},
        {"grid": "karras"},
        {"prompt": LONG},
        {"image": Image.new("RGB", (16, 16))},
        {"guidance_interval": (0.5, 2.0)},
    ],
)
def test_what_cannot_share_a_batch(system, change):
    one = Request("a cat", steps=3, seed=1, sampler="ddim")
    key = together.key(system, system.resolve(one))
    assert key == together.key(system, system.resolve(replace(one, prompt="a dog", seed=7, n=3)))
    assert key != together.key(system, system.resolve(replace(one, **change)))
    hash(key)
    with pytest.raises(SuffuseError, match="cannot share a batch"):
        next(together.stream(system, [one, replace(one, **change)]))


def picture(seed, side=8):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8))


def test_classes_of_one_batch():
    system = DDPM(ddpm_model(classes=3))
    asked = [Request(c, steps=3, seed=i, guidance=2.0 + i) for i, c in enumerate("abc")]
    found = check_alone(system, asked)
    assert len({f.tobytes() for _, f in found.values()}) == 3


@pytest.mark.parametrize("sampler", ["reverse_diffusion+langevin", "dpm++_2m"])
def test_masks_of_score_sdes_in_one_batch(sampler):
    system = score_sde("Vp")
    half = np.zeros((8, 8), np.uint8)
    half[:4] = 255
    asked = [
        Request(steps=24, seed=i, sampler=sampler, strength=1.0, image=picture(i), mask=mask)
        for i, mask in enumerate((Image.fromarray(half), Image.fromarray(half.T.copy())))
    ]
    found = check_alone(system, asked)
    (_, first), (_, second) = found[0, 0], found[1, 0]
    assert (first[4:] == levels(picture(0))[4:]).all()
    assert (second[:, 4:] == levels(picture(1))[:, 4:]).all()


def test_pictures_to_enlarge_in_one_batch():
    system = SuperResolution(upscaler())
    asked = [Request(steps=3, seed=i, image=picture(i)) for i in range(2)]
    found = check_alone(system, asked)
    assert (found[0, 0][1] != found[1, 0][1]).any()


def test_nothing_asked_is_nothing_drawn(system):
    assert list(together.stream(system, [])) == []


def test_batches_of_the_bundled_model():
    """To the bit where it was measured (docs/together.md); other processors have other kernels."""
    system = suffuse.load(device="cpu", dtype="float32")
    asked = [
        Request("a red apple", steps=2, seed=1),
        Request("고양이 두 마리", "blue", steps=2, seed=2, guidance=5.0),
        Request("a dog left of a cat", steps=2, seed=3),
    ]
    check_alone(system, asked)
