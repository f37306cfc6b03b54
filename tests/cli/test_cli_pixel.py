"""Pixel models from the command line: train, draw, measure; and what is refused."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

SHORT = ("--steps", "2", "--batch", "4")


def test_train_draw_measure(run, refusal, tmp_path):
    """A model of digits with classes, from nothing to bits per dimension."""
    status, out, err = run("train", "ddpm", "-o", "digits", "--preset", "toy", *SHORT)
    assert status == 0 and out == "digits/model\n", err
    model = ("--model", "digits/model")

    status, out, err = run("generate", *model, "--n", "2", "--seed", "3", "--steps", "2")
    assert status == 0, err
    drawn = [Path(line.split("  ")[0]) for line in out.splitlines()]
    assert [path.name for path in drawn] == ["00001-3.png", "00002-4.png"]
    with Image.open(tmp_path / drawn[1]) as picture:
        assert (picture.size, picture.mode) == ((8, 8), "L")
        second = picture.tobytes()

    # The picture says how it was made: it comes again, alone.
    status, out, err = run("generate", "--like", drawn[1], "-o", "again.png")
    assert status == 0, err
    assert Image.open(tmp_path / "again.png").tobytes() == second

    status, out, err = run("generate", "7", *model, "--guidance", "3", "--steps", "2")
    assert status == 0 and "-7.png  seed" in out, err

    said = refusal("generate", "11", *model)
    assert said.startswith("this model has no class '11': its 10 classes are 0, 1, 2, 3, 4, 5 ...")
    assert refusal("generate", *model, "--guidance", "3").startswith("there is nothing to guide to")

    measure = ("evaluate", "likelihood", *model, "--data", "digits", "--n", "2")
    status, out, err = run(*measure, "--respacing", "5", "--json")
    assert status == 0, err
    found = json.loads(out)
    parts = sum(found[name] for name in ("prior", "transitions", "decoder"))
    assert found["bits_per_dim"] == pytest.approx(parts) and found["bits_per_dim"] > 0
    assert (found["pictures"], found["steps"]) == (2, 5)
    assert refusal(*measure, "--respacing", "often").startswith("cannot read the respacing 'often'")


def test_a_classifier_guides_an_adm(run, refusal, tmp_path):
    """Both trained by the command, one guiding the other; a picture that tells so comes again."""
    for stage in ("adm", "classifier"):
        status, out, err = run("train", stage, "-o", stage, "--preset", "toy", *SHORT)
        assert status == 0 and out == f"{stage}/model\n", err
    model, judge = ("--model", "adm/model"), ("--classifier", "classifier/model")
    scale = ("--classifier-scale", "2", "--guidance-interval", "0.1,5", "--respacing", "ddim2")
    status, out, err = run("generate", "7", *model, *judge, *scale, "--seed", "3", "-o", "7.png")
    assert status == 0, err
    status, out, err = run("generate", "--like", "7.png", "-o", "again.png")
    assert status == 0, err
    first, again = (Image.open(tmp_path / name) for name in ("7.png", "again.png"))
    assert first.tobytes() == again.tobytes() and first.mode == "L"
    assert "Classifier: classifier/model, Classifier scale: 2" in first.text["parameters"]

    for args, message in (
        (judge, "a classifier guides to a class: name one as the prompt"),
        (("7", "--classifier", "nowhere"), "there is no classifier 'nowhere'"),
        (("7", *judge, "--classifier-scale", "-1"), "classifier_scale must be 0 or more, not -1"),
        (("7", "--guidance-interval", "5"), "guidance_interval must be two numbers LOW,HIGH"),
        (("7", "--respacing", "often"), "cannot read the respacing 'often'; it may be a number"),
    ):
        assert refusal("generate", *args, *model).startswith(message)
    assert refusal("generate", "--model", "classifier/model").endswith(
        "is a classifier and draws nothing itself: guide another model with it, as classifier of "
        "a request"
    )


def test_presets_are_listed(run):
    status, out, err = run("train", "--list")
    assert status == 0, err
    for row in ("adm +imagenet256 .* 4.59", "adm +imagenet128 .* 2.43", "classifier +digits"):
        assert re.search(row, out), out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--preset", "huge"), "unknown preset 'huge': choose one of digits, digits-hybrid, emoji"),
        (("--preset", "cifar10"), "this preset has no pictures of its own: name a folder"),
        (("--preset", "toy", "--data", "nowhere", "--labels"), "there is no folder 'nowhere'"),
    ],
)
def test_one_line_and_nothing_begun(args, message, tmp_path, refusal):
    assert refusal("train", "ddpm", "-o", "out", *args).startswith(message)
    assert not (tmp_path / "out").exists()
