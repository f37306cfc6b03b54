"""Requests in the database and on the page: the one loses nothing, the other tells no paths."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from suffuse.errors import SuffuseError
from suffuse.studio.disk import Files
from suffuse.studio.messages import one_line
from suffuse.studio.requests import batch_key, check_limits, check_model, pack, shown, unpack
from suffuse.studio.settings import Limits, Settings
from suffuse.studio.views import DefaultsView, ModelView
from suffuse.systems.request import Request

MODEL = ModelView(
    name="m",
    default=True,
    known=True,
    kind="text",
    factor=8,
    defaults=DefaultsView(steps=20, guidance=3.0, sampler="ddim", width=128, height=128),
)
numbers = st.floats(0, 30, allow_nan=False)
words = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=40)
requests = st.builds(
    Request,
    prompt=words,
    negative=words,
    steps=st.none() | st.integers(1, 150),
    guidance=st.none() | numbers,
    eta=st.none() | numbers,
    sampler=st.sampled_from((None, "euler_a", "DPM++ 2M Karras")),
    grid=st.sampled_from((None, "karras")),
    seed=st.none() | st.integers(0, 2**62),
    n=st.integers(1, 16),
    width=st.none() | st.integers(1, 2048),
    guidance_interval=st.none() | st.just((0.5, 8.0)),
    loras=st.none() | st.just(("/models/a.safetensors:0.5",)),
    embeddings=st.none() | st.just(("/models/word.pt",)),
)


@given(requests)
def test_a_request_comes_back_from_the_database(request):
    packed = json.loads(json.dumps(pack(request, lambda content: "")))
    assert unpack(packed, lambda digest: None) == request


@given(requests)
def test_what_is_shown_has_no_paths(request):
    told = shown(pack(request, lambda content: ""))
    assert "/models" not in json.dumps(told)
    assert told["loras"] in (None, ["a.safetensors:0.5"])
    assert told["embeddings"] in (None, ["word.pt"])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK", "1", "LA"])
def test_pictures_are_kept_beside_it(tmp_path, mode):
    files = Files(tmp_path)
    files.open()
    picture = Image.new("RGB", (5, 4), (200, 30, 30)).convert(mode)
    mask = Image.new("L", (5, 4), 255)
    packed = pack(Request("x", image=picture, mask=mask), lambda c: files.put("input", c))
    back = unpack(packed, lambda digest: files.path("input", digest))
    for found, sent in zip(back.pictures(), Request("x", image=picture, mask=mask).pictures()):
        assert (found.mode, found.tobytes()) == (sent.mode, sent.tobytes())
    told = shown(packed)["image"]
    assert told == {"sha256": packed["image"], "url": f"/api/inputs/{packed['image']}.png"}
    files.remove("input", packed["image"])
    with pytest.raises(SuffuseError, match="no longer there"):
        unpack(packed, lambda digest: files.path("input", digest))
    files.close()


def test_what_may_share_a_batch():
    def key(**fields):
        return batch_key(Request("a", **fields), MODEL)

    picture = Image.new("RGB", (8, 8))
    same = [
        {},
        {"steps": 20},
        {"seed": 5, "n": 3},
        {"best_of": 2},
        {"guidance": 5.0},
        {"width": 128},
    ]
    assert len({key(**fields) for fields in same}) == 1
    others = [
        {},
        {"steps": 19},
        {"guidance": 1.0},
        {"sampler": "euler"},
        {"width": 64},
        {"clip_skip": 1},
        {"image": picture},
        {"image": picture, "mask": picture.convert("L")},
        {"loras": ("a",)},
    ]
    assert len({key(**fields) for fields in others}) == len(others)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 151}, "steps must be at most 150, not 151"),
        ({"n": 17}, "n must be at most 16, not 17"),
        ({"best_of": 17}, "best_of must be at most 16, not 17"),
        ({"width": 2049}, "width must be at most 2048, not 2049"),
        ({"prompt": "a" * 20_001}, "prompt must be at most 20000 characters, not 20001"),
        ({"negative": "a\0b"}, "negative has a NUL character: leave it out"),
        ({"image": Image.new("1", (5000, 4000))}, "the image is 5000x4000: at most 16777216 pix"),
    ],
)
def test_limits(fields, message):
    with pytest.raises(SuffuseError, match=message):
        check_limits(Request(**{"prompt": "x", **fields}), Limits())


def test_a_known_model_is_asked_at_once():
    with pytest.raises(SuffuseError, match="the prompt is empty"):
        check_model(Request(" "), MODEL)
    with pytest.raises(SuffuseError, match=r"height 100 .* try 96"):
        check_model(Request("a", height=100), MODEL)
    with pytest.raises(SuffuseError, match="name the image"):
        check_model(Request("a"), MODEL.model_copy(update={"kind": "upscaler"}))
    check_model(Request(" "), ModelView(name="other", default=False))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("cannot open the image '/srv/my data/a.png': not a picture", "the image 'a.png': not"),
        ("/srv/models/sd.safetensors: has no U-Net", "sd.safetensors: has no U-Net"),
        ("there is no LoRA '~/loras/x.pt'\nsecond line", "there is no LoRA 'x.pt'"),
        (r"cannot read 'C:\models\x.pt': no", "cannot read 'x.pt': no"),
        ("guidance 3/4 is a/b, 5 px/s", "guidance 3/4 is a/b, 5 px/s"),
    ],
)
def test_errors_are_one_line_without_paths(said, told):
    line = one_line(SuffuseError(said))
    assert told in line
    assert not any(word in line for word in ("srv", "~", "C:", "loras/", "\n"))


def test_other_errors_say_nothing_of_our_insides():
    assert one_line(KeyError("/etc/secret")) == (
        "internal error, KeyError: the service's log says more"
    )
    assert "memory" in one_line(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert "memory" in one_line(MemoryError())


def test_settings_name_a_default_that_there_is():
    assert Settings(models={"a": "x", "b": None}).default_model == "a"
    with pytest.raises(ValueError, match="not one of the models"):
        Settings(default_model="none")
    with pytest.raises(ValueError):
        Settings(models={})
