"""Pictures of strangers: what is taken, what is refused, and in which words."""

import base64
import io
import struct
import zlib

import pytest
from bombs import gif, png
from hypothesis import given, settings, strategies
from PIL import Image

from suffuse.studio import asked, inputs
from suffuse.studio.messages import without_paths
from suffuse.studio.problems import Problem
from suffuse.studio.settings import Limits, Settings

LIMITS = Limits()


def written(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def refusal(given, status=400):
    with pytest.raises(Problem) as caught:
        inputs.picture(given, "image", LIMITS)
    assert caught.value.status == status
    assert caught.value.field == "image"
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("form", inputs.FORMATS)
def test_every_format_as_bytes_base64_and_data_url(form):
    image = Image.linear_gradient("L").resize((24, 16)).convert("RGB")
    data = written(image, form)
    expected = Image.open(io.BytesIO(data)).convert("RGB")
    text = base64.b64encode(data).decode()
    broken_up = "\r\n".join(text[i : i + 76] for i in range(0, len(text), 76))
    for given_as in (data, text, broken_up, f"data:image/{form.lower()};base64,{text}"):
        found = inputs.picture(given_as, "image", LIMITS)
        assert found.convert("RGB").tobytes() == expected.tobytes()


def test_an_empty_file_is_not_the_same_as_none():
    with pytest.raises(Problem, match="image is empty: send a picture"):
        asked.request_of(asked.parse(b'{"prompt": "a"}'), {"image": b""}, Settings())


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (8, 8), c) for c in ("red", "lime", "blue")]
    data = written(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert inputs.picture(data, "image", LIMITS).convert("RGB").getpixel((0, 0)) == (255, 0, 0)


def test_upright_and_without_the_cameras_words():
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    found = inputs.picture(written(Image.new("RGB", (20, 10)), "JPEG", exif=exif), "image", LIMITS)
    assert found.size == (10, 20)
    assert found.info == {} and not found.getexif()


def test_transparency_is_kept():
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert inputs.picture(written(clear, "PNG"), "image", LIMITS).getpixel((0, 0))[3] == 0
    paletted = written(Image.new("P", (4, 4), 0), "PNG", transparency=0)
    assert inputs.picture(paletted, "image", LIMITS).mode == "RGBA"


def test_sixteen_bits_of_grey_are_scaled():
    grey = Image.new("I;16", (4, 4), 0x8000)
    assert inputs.picture(written(grey, "PNG"), "image", LIMITS).getpixel((0, 0)) == (128,) * 3


@pytest.mark.parametrize(
    "data",
    [
        png(40_000, 40_000),
        png(2**31 - 1, 2**31 - 1),
        gif((65_535, 65_535), (1, 1)),
        gif((1, 1), (65_535, 65_535)),
        gif((1, 1), (9_000, 9_000)),
        b"\xff\xd8\xff\xc0\x00\x0b\x08" + struct.pack(">HH", 65_000, 65_000) + b"\x01\x01\x11\x00",
    ],
    ids=["png", "png-most", "gif-screen", "gif-frame", "gif-frame-below-pillows-limit", "jpeg"],
)
def test_bombs_are_refused_by_their_headers(data):
    assert "pixels: at most" in refusal(data, 413)


def test_text_chunk_bombs():
    head = png(1, 1, bytes(2))
    body = b"zTXt" + b"a\0\0" + zlib.compress(bytes(20_000_000), 9)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    assert "not a PNG" in refusal(head[:33] + chunk + head[33:])


def test_jpeg_of_endless_scans():
    data = written(Image.new("RGB", (64, 64)), "JPEG", progressive=True)
    assert "scans" in refusal(data[:-2] + b"\xff\xda\x00\x02" * 501 + data[-2:])


@pytest.mark.parametrize(
    ("given_as", "why"),
    [
        ("", "empty"),
        (b"", "empty"),
        ("%%%", "base64"),
        ("aGVsbG8", "base64"),
        ("é" * 8, "base64"),
        ("data:image/png,abc", "base64"),
        ("data:image/png;base64", "base64"),
        ("https://example.org/cat.png", "address"),
        ("aGVsbG8=", "not a PNG"),
        (png(8, 8), "not a PNG"),
        (png(8, 8, b"\x07" * 72), "not a PNG"),
        (written(Image.new("RGB", (64, 64)), "JPEG")[:300], "not a PNG"),
        (written(Image.new("RGB", (8, 8)), "BMP"), "not a PNG"),
        (written(Image.new("RGB", (8, 8)), "TIFF"), "not a PNG"),
    ],
)
def test_what_is_no_picture(given_as, why):
    assert why in refusal(given_as)


@settings(max_examples=60, deadline=None)
@given(data=strategies.data())
def test_damaged_files_are_problems_and_nothing_else(data):
    form = data.draw(strategies.sampled_from(inputs.FORMATS))
    whole = bytearray(written(Image.new("RGB", (9, 7), "teal"), form))
    for _ in range(data.draw(strategies.integers(1, 4))):
        at = data.draw(strategies.integers(0, len(whole) - 1))
        whole[at] = data.draw(strategies.integers(0, 255))
    try:
        assert inputs.picture(bytes(whole), "image", LIMITS).size[0] >= 1
    except Problem as problem:
        assert problem.status in (400, 413)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("there is no LoRA '/srv/my models/a.pt'", "there is no LoRA 'a.pt'"),
        ("/srv/models/a.pt: is a classifier", "a.pt: is a classifier"),
        (r"cannot read 'C:\models\a.pt': no", "cannot read 'a.pt': no"),
        ("cannot read ~/a/b.pt, sorry", "cannot read b.pt, sorry"),
        ("sigma / alpha is 1/2, and/or more", "sigma / alpha is 1/2, and/or more"),
    ],
)
def test_errors_carry_no_paths(said, shown):
    assert without_paths(said) == shown
