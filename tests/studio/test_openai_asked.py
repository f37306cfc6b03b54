"""What OpenAI's fields become, without a server."""

import pytest
from PIL import Image, ImageDraw
from pydantic import ValidationError

from suffuse.errors import SuffuseError
from suffuse.studio.openai_asked import (
    AskedEdit,
    AskedGeneration,
    AskedVariation,
    edit_start,
    preview_every,
    request_of,
)
from suffuse.studio.settings import Limits
from suffuse.studio.views import DefaultsView, ModelView
from suffuse.systems.request import Request


def pierced(size=(8, 8), mode="RGBA"):
    picture = Image.new(mode, size, (9, 9, 9, 255))
    ImageDraw.Draw(picture).rectangle((0, 0, 3, size[1]), fill=(0, 0, 0, 0))
    return picture


def test_a_generation_is_the_request_of_these_names():
    asked = AskedGeneration(
        prompt="a cat",
        n=2,
        size="64x32",
        seed=7,
        steps=3,
        guidance=2,
        negative_prompt="dog",
        sampler="DDIM",
        quality="hd",
        user="me",
    )
    assert request_of(asked) == Request(
        "a cat", "dog", n=2, width=64, height=32, seed=7, steps=3, guidance=2.0, sampler="DDIM"
    )
    assert request_of(AskedGeneration(prompt="a", size="auto")) == Request("a")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"background": "transparent"}, "draw no transparency"),
        ({"output_compression": 50}, "png loses nothing"),
        ({"response_format": "url", "output_format": "webp"}, "ask for b64_json"),
        ({"response_format": "url", "stream": True}, "ask for b64_json"),
        ({"partial_images": 2}, "needs stream"),
        ({"size": "64*64"}, "is not WIDTHxHEIGHT"),
        ({"size": "0x64"}, "width must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused(fields, says):
    with pytest.raises(SuffuseError, match=says):
        request_of(AskedGeneration(prompt="a", **fields))


@pytest.mark.parametrize(
    "fields",
    [{"n": 0}, {"svg": {}}, {"partial_images": 4}, {"output_compression": 101}, {"guidance": "x"}],
)
def test_what_openai_refuses_is_refused_by_name(fields):
    with pytest.raises(ValidationError) as caught:
        AskedGeneration(prompt="a", **fields)
    assert caught.value.errors()[0]["loc"] == (next(iter(fields)),)


def test_the_masks_holes_are_repainted_from_nothing():
    image = Image.new("RGB", (8, 8), "blue")
    request = request_of(
        AskedEdit(prompt="a"), edit_start(AskedEdit(prompt="a"), image, pierced(), Limits())
    )
    assert request.strength == 1.0
    assert request.mask.getbbox() == (0, 0, 4, 8)
    assert request.image.getcolors() == [(64, (0, 0, 255))]  # under the mask it stays


def test_without_a_mask_the_pictures_own_holes_are():
    start = edit_start(AskedEdit(prompt="a"), pierced(), None, Limits())
    assert start.mask.getbbox() == (0, 0, 4, 8)
    assert start.image.getcolors() == [(64, (9, 9, 9))]  # no black shines through


def test_without_holes_the_whole_picture_is():
    asked = AskedEdit(prompt="a", size="4x4")
    start = edit_start(asked, Image.new("RGB", (8, 8)), None, Limits())
    assert (start.mask, start.image.size) == (None, (4, 4))
    assert request_of(asked, start).strength == 0.8
    assert request_of(AskedVariation(), start).strength == 0.6
    assert request_of(AskedVariation(strength=0.5), start).strength == 0.5


def test_masks_that_do_not_fit_are_refused():
    image, asked = Image.new("RGB", (8, 8)), AskedEdit(prompt="a")
    with pytest.raises(SuffuseError, match="differ in size, 4x4 and 8x8"):
        edit_start(asked, image, pierced((4, 4)), Limits())
    with pytest.raises(SuffuseError, match="nothing would change"):
        edit_start(asked, image, Image.new("L", (8, 8)), Limits())


def test_partial_pictures_are_spread_over_the_steps():
    model = ModelView(name="m", default=True, defaults=DefaultsView(steps=20))
    every = lambda **fields: preview_every(AskedGeneration(prompt="a", **fields), model)  # noqa: E731
    assert every() == every(stream=True) == 0
    assert every(stream=True, partial_images=3) == 5
    assert every(stream=True, partial_images=2, steps=4) == 1
