"""The text other programs read, our own record, and files that are whole or absent."""

import contextlib
import json
import os
import struct
from dataclasses import replace

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from suffuse.diffusion.samplers import resolve, sampler_names
from suffuse.errors import SuffuseError
from suffuse.systems import infotext
from suffuse.systems.infotext import Parameters
from suffuse.systems.metadata import (
    Origin,
    decode_comment,
    describe,
    file_name,
    next_number,
    read_parameters,
    write_png,
)
from suffuse.systems.request import GRIDS, Request

# As the web UI wrote them in versions 1.0 (two samplers in one name), 1.5 and 1.10, the last with
# the unquoted JSON that sites add. Prompts are ours; the shapes of the last lines are theirs.
OLD = """a harbour at dawn, fog, (warm light:1.2)
Negative prompt: (worst quality, low quality:1.4), text,
Steps: 28, Sampler: DPM++ 2M Karras, CFG scale: 6, Seed: 259005813, Size: 512x768, \
Model hash: e8c63e365d, Denoising strength: 0.55, Clip skip: 2, ENSD: 31337, \
Hires upscale: 1.5, Hires upscaler: Latent (bicubic antialiased)"""
HASHES = """a fox on a hill, <lora:ink:0.8>
watercolour,

second paragraph
Negative prompt: blurry
cropped
Steps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 2822745983, Size: 512x512, \
Model hash: 6ce0161689, Model: v1-5-pruned-emaonly, \
TI hashes: "EasyNegative: c74b4e810b03", Lora hashes: "ink: aaa111, wash: bbb222", Version: v1.5"""
NEWEST = """a small boat
Steps: 30, Sampler: DPM++ SDE, Schedule type: Karras, CFG scale: 2, Seed: 77, Size: 832x1216, \
Hashes: {"model": "abc123", "vae": "def456"}, \
Civitai resources: [{"modelId":12,"type":"Checkpoint"}], Version: v1.10.1
Template: a {small|big} boat"""


def test_reads_what_the_web_ui_writes():
    old = infotext.parse(OLD)
    assert old.prompt == "a harbour at dawn, fog, (warm light:1.2)"
    assert old.negative == "(worst quality, low quality:1.4), text,"
    assert old.fields["Hires upscaler"] == "Latent (bicubic antialiased)"
    values = infotext.request_values(old)
    assert resolve(values["sampler"])[:2] == ("dpm++_2m", "karras")
    assert (values["clip_skip"], values["strength"]) == (1, 0.55)

    hashes = infotext.parse(HASHES)
    assert hashes.prompt == "a fox on a hill, <lora:ink:0.8>\nwatercolour,\n\nsecond paragraph"
    assert hashes.negative == "blurry\ncropped"
    assert hashes.fields["Lora hashes"] == "ink: aaa111, wash: bbb222"
    assert hashes.fields["Model hash"] == "6ce0161689"
    again = Request(**infotext.request_values(hashes))
    assert (again.steps, again.guidance, again.seed) == (20, 7.5, 2822745983)
    assert (again.sampler, again.grid) == ("Euler a", None)
    assert (again.width, again.height, again.strength) == (512, 512, 0.8)

    newest = infotext.parse(NEWEST)
    assert (newest.prompt, newest.negative) == ("a small boat", "")
    assert newest.fields["Version"] == "v1.10.1"
    assert json.loads(newest.fields["Hashes"])["vae"] == "def456"
    assert json.loads(newest.fields["Civitai resources"])[0]["modelId"] == 12


@pytest.mark.parametrize(
    ("text", "prompt", "negative", "count"),
    [
        ("only a prompt", "only a prompt", "", 0),
        ("a cat\nNegative prompt: dogs", "a cat", "dogs", 0),
        ("a cat\nNegative prompt: \nSampler: Euler, CFG scale: 2, Seed: 1", "a cat", "", 3),
        ("time: noon, place: sea", "time: noon, place: sea", "", 0),
        ("", "", "", 0),
    ],
)
def test_reads_partial_texts(text, prompt, negative, count):
    found = infotext.parse(text)
    assert (found.prompt, found.negative, len(found.fields)) == (prompt, negative, count)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("CFG scale: high", "CFG scale is 'high'"),
        ("Size: axb", "Size is 'axb'"),
        ("Schedule type: Align Your Steps", "schedule type 'Align Your Steps' is not one of ours"),
    ],
)
def test_unreadable_fields_are_named(field, message):
    with pytest.raises(SuffuseError, match=message):
        infotext.request_values(infotext.parse(f"a cat\nSteps: 20, {field}"))


def test_a_long_prompt_does_not_take_quadratic_time():
    words = "word " * 40_000
    assert infotext.parse(f"{words}\n{words}").fields == {}


# Neither a prompt line beginning "Negative prompt:" nor one beginning "Steps: 1" below the fields
# can be told apart in this format; the fields come last, so only the former is excluded here.
prompts = st.text(min_size=1).filter(lambda s: "\nNegative prompt:" not in "\n" + s)
keys = st.from_regex(r"[A-Za-z][A-Za-z0-9 /_-]{0,20}[A-Za-z0-9]", fullmatch=True)
values = st.text() | st.sampled_from(['"', '"a"', "a, b: c", "x\ny", " pad ", "{a", "[", "\\"])


@example("a cat", "", {"A": "[", "B": "]"}, 20)
@given(prompts, st.text(), st.dictionaries(keys, values, max_size=6), st.integers(1, 999))
def test_text_round_trip(prompt, negative, more, steps):
    assume("Steps" not in more)
    given_ = Parameters(prompt, negative, {"Steps": str(steps), **more})
    assert infotext.parse(infotext.write(given_)) == given_


@given(
    st.builds(
        Request,
        prompt=prompts.filter(str.strip),
        negative=st.text(),
        steps=st.integers(1, 1000),
        guidance=st.floats(0, 1e6),
        rescale=st.floats(0, 1),
        sampler=st.sampled_from(sampler_names()),
        grid=st.none() | st.sampled_from(GRIDS),
        eta=st.none() | st.floats(0, 1),
        seed=st.integers(0, 2**62),
        width=st.integers(1, 4096),
        height=st.integers(1, 4096),
        clip_skip=st.integers(0, 11),
    )
)
def test_other_programs_text_alone_restores_a_text_to_image_request(request):
    shown = infotext.describe(request, "model: a, b", "0123456789abcdef", {})
    assert shown.fields["Model hash"] == "0123456789"
    found = infotext.parse(infotext.write(shown))
    assert found == shown
    again = Request(**infotext.request_values(found))
    assert replace(again, sampler=resolve(again.sampler).name) == request


@pytest.mark.parametrize(
    ("name", "grid", "sampler", "schedule"),
    [
        ("EulerAncestralDiscreteScheduler", None, "Euler a", None),
        ("dpmpp_2m_karras", None, "DPM++ 2M", "Karras"),
        ("dpm++ 2m karras", "exponential", "DPM++ 2M", "Exponential"),
        ("DPM++ 2M SDE Heun", "karras", "DPM++ 2M SDE Heun", "Karras"),
        (None, "linspace", None, "Uniform"),
    ],
)
def test_samplers_go_by_the_web_uis_names(name, grid, sampler, schedule):
    shown = infotext.describe(Request("a", sampler=name, grid=grid), None, None, {}).fields
    assert (shown.get("Sampler"), shown.get("Schedule type")) == (sampler, schedule)


def test_the_text_looks_as_users_know_it():
    request = Request("a cat", "dogs", 20, 7, sampler="euler_a", grid="karras", seed=1)
    shown = describe(request, Origin("v1-5", hash="6ce0161689aa")).for_image(3, (512, 512))
    assert infotext.write(shown.parameters) == (
        "a cat\nNegative prompt: dogs\n"
        "Steps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 7, Seed: 3, "
        "Model hash: 6ce0161689, Model: v1-5, Version: suffuse 0.1.0, Size: 512x512"
    )


@pytest.mark.parametrize(
    "prompt", ["a cat", "빨간 사과\nNegative prompt: no\nSteps: 3, x", "é – 🍎"]
)
def test_png_round_trip(tmp_path, prompt):
    path = tmp_path / "out.png"
    request = Request(prompt, "x: y", 12, 5.5, sampler="ddim", seed=40, n=4, width=8, height=8)
    origin = Origin("model", "some/folder", "ab" * 32, "float32")
    image = Image.new("RGB", (8, 8), (1, 2, 3))
    write_png(image, path, describe(request, origin).for_image(42, image.size))
    found = read_parameters(path)
    assert found.to_request() == Request(
        prompt, "x: y", 12, 5.5, 0.0, "ddim", None, None, 42, 1, 8, 8
    )
    assert found.origin == origin
    assert (found.parameters.prompt, found.parameters.fields["Seed"]) == (prompt, "42")
    assert found.to_request({"seed": 9, "steps": 3}).steps == 3
    with Image.open(path) as stored:
        assert stored.tobytes() == image.tobytes()


def comment(text: str, encoding: str) -> bytes:
    head = b"ASCII\0\0\0" if encoding == "ascii" else b"UNICODE\0"
    return head + text.encode(encoding)


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le", "utf-16", "ascii"])
def test_exif_user_comment(tmp_path, suffix, encoding):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = comment(HASHES, encoding)
    path = tmp_path / f"x{suffix}"
    Image.new("RGB", (8, 8)).save(path, exif=exif)
    assert read_parameters(path).parameters == infotext.parse(HASHES)


def test_comments_in_other_scripts_and_without_a_head():
    text = "빨간 사과 하나\nSteps: 20, Sampler: Euler, Seed: 1, Size: 512x512"
    for encoding in ("utf-16-be", "utf-16-le"):
        assert decode_comment(comment(text, encoding)) == text
    assert decode_comment(text.encode()) == text


def test_pictures_that_say_nothing(tmp_path):
    bare, jpeg, comfy = tmp_path / "bare.png", tmp_path / "bare.jpg", tmp_path / "comfy.png"
    Image.new("RGB", (8, 8)).save(bare)
    Image.new("RGB", (8, 8)).save(jpeg)
    info = PngInfo()
    info.add_text("workflow", "{}")
    Image.new("RGB", (8, 8)).save(comfy, pnginfo=info)
    for path in (bare, jpeg):
        with pytest.raises(SuffuseError, match="carries no generation parameters"):
            read_parameters(path)
    with pytest.raises(SuffuseError, match="made by ComfyUI"):
        read_parameters(comfy)
    with pytest.raises(SuffuseError, match="there is no file"):
        read_parameters(tmp_path / "none.png")
    bare.write_bytes(b"hello")
    with pytest.raises(SuffuseError, match="not a picture"):
        read_parameters(bare)


@pytest.mark.parametrize(
    "record",
    [
        "{",
        "[]",
        "{}",
        '{"request": {}}',
        '{"request": {"prompt": 1}}',
        '{"manipulation": {"after": "x"}}',
    ],
)
def test_a_damaged_record(tmp_path, record):
    info = PngInfo()
    info.add_text("suffuse", record)
    path = tmp_path / "x.png"
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    with pytest.raises(SuffuseError):
        read_parameters(path).to_request()


def test_a_truncated_or_oversized_png_is_no_crash(tmp_path):
    path = tmp_path / "x.png"
    write_png(Image.new("RGB", (8, 8)), path, describe(Request("a"), Origin()))
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with contextlib.suppress(SuffuseError):
            read_parameters(path)
    huge = bytearray(whole)
    huge[16:24] = struct.pack(">II", 2**30, 2**30)
    path.write_bytes(huge)
    with pytest.raises(SuffuseError):
        read_parameters(path)


def test_the_web_uis_repainted_pictures_need_their_image(tmp_path):
    info = PngInfo()
    info.add_text("parameters", "a cat\nSteps: 20, Seed: 1, Denoising strength: 0.5")
    path = tmp_path / "x.png"
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    with pytest.raises(SuffuseError, match="made from another one"):
        read_parameters(path).to_request()
    again = read_parameters(path).to_request({"image": Image.new("RGB", (8, 8))})
    assert again.strength == 0.5


def test_never_overwrites_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "x.png"
    red, blue = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    write_png(red, path)
    with pytest.raises(FileExistsError):
        write_png(blue, path)
    assert Image.open(path).getpixel((0, 0)) == (255, 0, 0)
    write_png(blue, path, overwrite=True)
    assert Image.open(path).getpixel((0, 0)) == (0, 0, 255)
    with pytest.raises(SuffuseError, match="cannot write"):
        write_png(red, tmp_path / "none" / "x.png")
    with pytest.raises(SuffuseError, match="cannot write"):
        write_png(Image.new("CMYK", (4, 4)), tmp_path / "cmyk.png")  # PNG has no such mode
    assert os.listdir(tmp_path) == ["x.png"]


def test_a_file_system_without_links_still_never_overwrites(tmp_path, monkeypatch):
    def refuse(source, target):
        raise PermissionError(1, "links are not supported")

    monkeypatch.setattr(os, "link", refuse)
    write_png(Image.new("RGB", (4, 4)), tmp_path / "x.png")
    with pytest.raises(FileExistsError):
        write_png(Image.new("RGB", (4, 4)), tmp_path / "x.png")
    assert os.listdir(tmp_path) == ["x.png"]


def test_file_names(tmp_path):
    assert file_name(1, 7, "A red apple, on blue!") == "00001-7-a-red-apple-on-blue.png"
    assert file_name(12, 0, "빨간 사과") == "00012-0-빨간-사과.png"
    assert file_name(1, 2**62, "../../etc") == f"00001-{2**62}-etc.png"
    assert file_name(1, 7, "?!") == "00001-7.png"
    assert len(file_name(1, 2**63 - 1, "가" * 500).encode()) < 255
    assert next_number(tmp_path) == 1
    for name in ("00002-1-a.png", "00010-x.png", "notes.txt", "123-y.png"):
        (tmp_path / name).touch()
    assert next_number(tmp_path) == 11
