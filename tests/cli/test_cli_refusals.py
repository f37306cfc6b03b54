"""Bad input of `suffuse generate`: one line, status 2, nothing written."""

import os

import pytest
from PIL import Image

APPLE = ("generate", "a red apple")


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "in.png")
    Image.new("L", (64, 32)).save(tmp_path / "mask.png")
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.txt").write_text("\n# nothing\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    return tmp_path


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("generate",), "say what to draw"),
        (("generate", ""), "the prompt is empty"),
        ((*APPLE, "--steps", "0"), "steps must be at least 1, not 0"),
        ((*APPLE, "--n", "0"), "n must be at least 1, not 0"),
        ((*APPLE, "--guidance", "nan"), "guidance must be 0 or more, not nan"),
        ((*APPLE, "--seed", "-2"), "seed must be at least -1, not -2"),
        ((*APPLE, "--width", "0"), "width must be at least 1, not 0"),
        ((*APPLE, "--grid", "spiral"), "unknown grid 'spiral': choose one of leading, trailing"),
        ((*APPLE, "--strength", "1.5"), "strength must be between 0 and 1, not 1.5"),
        ((*APPLE, "--preview", "0"), "preview must be at least 1, not 0"),
        ((*APPLE, "--mask", "mask.png"), "a mask needs an image"),
        ((*APPLE, "--image", "none.png"), "there is no image file 'none.png'"),
        ((*APPLE, "--image", "text.png"), "cannot open the image 'text.png': not a picture"),
        ((*APPLE, "--image", "."), "cannot open the image '.': it is a folder"),
        (
            (*APPLE, "--image", "in.png", "--mask", "mask.png"),
            "the mask is 64x32 pixels and the image 64x64",
        ),
        ((*APPLE, "--output", "in.png"), "'in.png' is already there: add --overwrite"),
        ((*APPLE, "--output", "out.jpg"), "pictures are written as PNG: name 'out.jpg'"),
        ((*APPLE, "--output", "text.png/out.png"), "cannot write in 'text.png': it is not a"),
        ((*APPLE, "--output", "/dev/null/x"), "cannot write in '/dev/null/x'"),
        ((*APPLE, "--output", "o.png", "--film", "./o.png"), "the film and the picture would both"),
        ((*APPLE, "--film", "in.png"), "'in.png' is already there"),
        (("generate", "--like", "in.png"), "'in.png' carries no generation parameters"),
        (("generate", "--like", "none.png"), "there is no file 'none.png'"),
        (("generate", "--from-file", "none.txt"), "cannot read 'none.txt'"),
        (("generate", "--from-file", "empty.txt"), "'empty.txt' has no prompts"),
        (("generate", "--from-file", "latin.txt"), "'latin.txt' is not text in UTF-8"),
        ((*APPLE, "--from-file", "empty.txt"), "--from-file brings the prompts"),
    ],
)
def test_one_line_and_nothing_written(args, message, folder, refusal):
    before = sorted(os.listdir(folder))
    assert refusal(*args).startswith(message)
    assert sorted(os.listdir(folder)) == before


def test_debug_shows_the_traceback(folder, run):
    status, out, err = run(*APPLE, "--steps", "0", "--debug")
    assert (status, out) == (2, "")
    assert err.startswith("Traceback") and err.endswith("not 0\n")


def test_a_name_cannot_forge_a_second_line(folder, refusal):
    assert "\x1b" not in refusal("generate", "--like", "a\n\x1b[31mb.png")


def test_an_unknown_sampler_lists_the_known(folder, refusal):
    message = refusal(*APPLE, "--sampler", "dreamy")
    assert "dreamy" in message
    for name in ("ddim", "plms", "euler_a", "dpm++_2m", "unipc"):
        assert name in message


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--width", "65"), ("--height", "65"), ("--device", "abacus"), ("--dtype", "float12")],
)
def test_what_only_the_model_can_refuse(flag, value, folder, refusal):
    assert value in refusal(*APPLE, flag, value)


@pytest.mark.parametrize("name", ["none.safetensors", "none/folder", "text.png", "empty.txt"])
def test_models_that_are_none(name, folder, refusal):
    assert name in refusal(*APPLE, "--model", name)
