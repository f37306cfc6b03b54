"""`Request` refuses what cannot run, in one line, and survives a trip through JSON."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from suffuse.errors import SuffuseError
from suffuse.systems.request import GRIDS, LARGEST_SEED, Request, open_picture


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompt": None}, "prompt must be text"),
        ({"prompt": "a\udc80"}, "not valid Unicode"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"steps": True}, "steps must be a whole number"),
        ({"n": 0}, "n must be at least 1"),
        ({"n": None}, "n must be a whole number"),
        ({"guidance": math.nan}, "guidance must be 0 or more, not nan"),
        ({"guidance": -1}, "guidance must be 0 or more, not -1"),
        ({"guidance": math.inf}, "guidance must be 0 or more, not inf"),
        ({"guidance": "7"}, "guidance must be a number"),
        ({"rescale": 1.5}, "rescale must be between 0 and 1"),
        ({"eta": -0.1}, "eta must be 0 or more"),
        ({"strength": 0}, "strength must be above 0"),
        ({"strength": 1.01}, "strength must be between 0 and 1"),
        ({"strength": math.nan}, "strength must be between 0 and 1"),
        ({"width": 0}, "width must be at least 1"),
        ({"height": -8}, "height must be at least 1"),
        ({"clip_skip": -1}, "clip_skip must be at least 0"),
        ({"seed": -2}, "seed must be at least -1"),
        ({"seed": 2**63}, "seed must be at most"),
        ({"seed": LARGEST_SEED, "n": 2}, "the last of 2 images"),
        ({"seed": LARGEST_SEED, "best_of": 3}, "the last of 3 images"),
        ({"best_of": 0}, "best_of must be at least 1"),
        ({"best_of": 2, "n": 3}, "best_of is how many are drawn to keep 3: it cannot be 2"),
        ({"best_of": 2, "prompt": " "}, "best_of keeps what is nearest to the prompt"),
        ({"grid": "spiral"}, "unknown grid 'spiral'"),
        ({"mask": "m.png"}, "a mask needs an image"),
    ],
)
def test_refuses(values, message):
    with pytest.raises(SuffuseError, match=message) as caught:
        Request(**{"prompt": "a cat", **values})
    assert "\n" not in str(caught.value)


def test_minus_one_is_random_and_resolve_settles_everything():
    assert Request("a cat", seed=-1).seed is None
    settled = Request("a cat", steps=5).resolve(steps=20, guidance=7, width=64, height=32)
    assert (settled.steps, settled.guidance, settled.width, settled.height) == (5, 7.0, 64, 32)
    assert 0 <= settled.seed < 2**32
    assert settled.resolve(steps=9) == settled
    seeds = {Request("a cat").resolve().seed for _ in range(20)}
    assert len(seeds) == 20


def test_pictures_missing_broken_and_mismatched(tmp_path):
    with pytest.raises(SuffuseError, match="there is no image file"):
        Request("a cat", image=tmp_path / "none.png").check()
    broken = tmp_path / "broken.png"
    Image.new("RGB", (64, 64), "red").save(broken)
    broken.write_bytes(broken.read_bytes()[:-30])
    (tmp_path / "text.png").write_text("hello")
    for path in (broken, tmp_path / "text.png", tmp_path):
        with pytest.raises(SuffuseError, match="cannot open the image"):
            Request("a cat", image=path).check()
    image, mask = Image.new("RGB", (64, 64)), Image.new("L", (64, 32))
    with pytest.raises(SuffuseError, match="the mask is 64x32 pixels and the image 64x64"):
        Request("a cat", image=image, mask=mask).check()


def test_pictures_are_upright_and_over_white():
    clear = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert open_picture(clear, "image", "RGB").getpixel((0, 0)) == (255, 255, 255)
    turned = Image.new("RGB", (4, 2))
    turned.getexif()[0x0112] = 6  # Orientation: rotate by 90 degrees
    image, mask = Request("a", image=turned, mask=Image.new("1", (2, 4), 1)).pictures()
    assert image.size == mask.size == (2, 4)
    assert mask.getextrema() == (255, 255)


requests = st.builds(
    Request,
    prompt=st.text(min_size=1).filter(str.strip),
    negative=st.text(),
    steps=st.none() | st.integers(1, 10**6),
    guidance=st.none() | st.floats(0, 1e9),
    rescale=st.floats(0, 1),
    sampler=st.none() | st.text(min_size=1),
    grid=st.none() | st.sampled_from(GRIDS),
    eta=st.none() | st.floats(0, 10),
    seed=st.none() | st.integers(-1, LARGEST_SEED - 10),
    n=st.integers(1, 10),
    width=st.none() | st.integers(1, 4096),
    height=st.none() | st.integers(1, 4096),
    strength=st.floats(0, 1, exclude_min=True),
    clip_skip=st.integers(0, 11),
)


@given(requests)
def test_json_round_trip(request):
    assert Request.from_json(json.loads(json.dumps(request.to_json()))) == request


def test_json_of_pictures(tmp_path):
    path = tmp_path / "in.png"
    Image.new("RGB", (8, 8), "red").save(path)
    request = Request("a cat", image=str(path), strength=0.5)
    data = request.to_json()
    assert Request.from_json(data) == request
    Image.new("RGB", (8, 8), "blue").save(path)
    with pytest.raises(SuffuseError, match="has changed"):
        Request.from_json(data)
    path.unlink()
    with pytest.raises(SuffuseError, match="cannot read the picture"):
        Request.from_json(data)
    memory = replace(request, image=Image.new("RGB", (8, 8))).to_json()
    assert set(memory["image"]) == {"sha256"}
    with pytest.raises(SuffuseError, match="only in memory"):
        Request.from_json(memory)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"prompt": "a", "colour": 1}, "unknown field 'colour'"),
        ({}, "no prompt"),
        ({"prompt": "a", "image": 3}, "image must be a path or a picture"),
        ({"prompt": "a", "steps": "20"}, "steps must be a whole number, not '20'"),
        ({"prompt": "a", "sampler": 3}, "sampler must be text"),
    ],
)
def test_from_json_refuses(data, message):
    with pytest.raises(SuffuseError, match=message):
        Request.from_json(data)


def test_the_grids_are_those_there_are():
    from suffuse.diffusion.grid import NAMES

    assert set(GRIDS) == set(NAMES)


def test_building_a_request_imports_no_torch():
    code = (
        "import sys; from suffuse.systems.request import Request; Request('a').resolve().to_json();"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_sixteen_bits_of_grey_are_scaled_and_not_cut():
    ramp = Image.fromarray(np.linspace(0, 65535, 256, dtype=np.uint16)[None])
    assert ramp.mode == "I;16"
    levels = np.asarray(open_picture(ramp, "image", "RGB"))[0, :, 0]
    assert np.abs(levels.astype(int) - np.arange(256)).max() <= 1
