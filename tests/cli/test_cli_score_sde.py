"""Score SDEs from the command line: train, draw, control, measure; and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHORT = ("--steps", "2", "--batch", "4")


def test_train_draw_measure(run, refusal, tmp_path):
    status, out, err = run("train", "score-sde", "-o", "sde", "--preset", "toy", *SHORT)
    assert status == 0 and out == "sde/model\n", err
    model = ("--model", "sde/model")

    # Half of a picture is kept, and the picture says how it was made.
    levels = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    Image.fromarray(levels).save(tmp_path / "given.png")
    mask = Image.new("L", (8, 8))
    mask.paste(255, (0, 0, 4, 8))
    mask.save(tmp_path / "mask.png")
    held = ("--image", "given.png", "--mask", "mask.png", "--strength", "1")
    way = ("--sampler", "reverse_diffusion+langevin", "--steps", "22")
    status, out, err = run("generate", *model, *held, *way, "--seed", "3", "--n", "2")
    assert status == 0, err
    drawn = [Path(line.split("  ")[0]) for line in out.splitlines()]
    assert [path.name for path in drawn] == ["00001-3.png", "00002-4.png"]
    with Image.open(tmp_path / drawn[1]) as picture:
        assert (np.asarray(picture)[:, 4:] == levels[:, 4:]).all()
        second = picture.tobytes()
    status, out, err = run("generate", "--like", drawn[1], "-o", "again.png")
    assert status == 0, err
    assert Image.open(tmp_path / "again.png").tobytes() == second

    measure = ("evaluate", "likelihood", *model, "--data", "digits", "--n", "2")
    status, out, err = run(*measure, "--json")
    assert status == 0, err
    found = json.loads(out)
    assert found["pictures"] == 2 and found["bits_per_dim"] > 0

    status, out, _ = run("inspect", "sde/model", "--json")
    assert json.loads(out)["format"] == "NCSNpp (model folder)"

    assert refusal(*measure, "--respacing", "10").startswith("a score SDE has no chain to respace")
    assert refusal("generate", "7", *model).startswith("this model has no classes to choose '7'")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--preset", "huge"), "unknown preset 'huge': choose one of digits, digits-likelihood"),
        (("--preset", "cifar10"), "this preset has no pictures of its own: name a folder"),
    ],
)
def test_one_line_and_nothing_begun(args, message, tmp_path, refusal):
    assert refusal("train", "score-sde", "-o", "out", *args).startswith(message)
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_does_not_say_what_it_is(refusal):
    path = Path(__file__).parents[1] / "parity/sde/networks/ncsnpp_deep.pth"
    said = refusal("generate", "--model", path)
    assert 'does not say its configuration; suffuse.load(path, config="…") takes one of' in said
