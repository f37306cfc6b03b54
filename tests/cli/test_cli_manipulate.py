"""`suffuse vary`, `blend` and `edit`."""

import karlo_tiny
import numpy as np
import pytest
from PIL import Image

from suffuse.systems.manipulation import Manipulation
from suffuse.systems.metadata import Origin, describe_manipulation, read_parameters, write_png

SIDE = 16  # pixels of what the tiny model draws, of pictures of 8


@pytest.fixture(autouse=True)
def pictures(tmp_path):
    picture = Image.linear_gradient("L").resize((40, 30)).convert("RGB")
    picture.save(tmp_path / "a.png")
    picture.rotate(180).save(tmp_path / "b.png")
    asked = Manipulation("vary", str(tmp_path / "a.png"), seed=1)
    write_png(picture, tmp_path / "varied.png", describe_manipulation(asked, Origin("x")))
    words = {"before": "a cat", "after": "a dog", "shares": (0.0, 0.4, 0.8)}
    edited = Manipulation("edit", str(tmp_path / "a.png"), **words)
    about = describe_manipulation(edited, Origin("x", hash="0" * 64))
    write_png(picture, tmp_path / "edited.png", about)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("vary",), "name a picture: suffuse vary cat.png"),
        (("blend", "a.png"), "a blend needs two pictures"),
        (("blend", "a.png", "b.png", "--frames", "0"), "frames must be at least 1, not 0"),
        (("edit", "a.png", "--from", "a cat"), "say what it shows and what it shall: --from"),
        (("edit", "a.png", "--from", "a", "--to", "a"), "it shows 'a' already: nothing would"),
        (
            ("edit", "a.png", "--from", "a", "--to", "b", "--amount", "2"),
            "amount must be between 0 and 1, not 2",
        ),
        (("edit", "--like", "varied.png"), "'varied.png' was not made by `suffuse edit`"),
        (("edit", "--like", "edited.png", "--frames", "0"), "frames must be at least 1, not 0"),
        (("evaluate", "variations", "--sheet", "v.jpg"), "sheets are written as PNG: name 'v.jpg'"),
        (("evaluate", "zero-shot", "--seed", "-1"), "seed must be 0 or more, not -1"),
        (("evaluate", "retrieval", "--seed", "-1"), "seed must be 0 or more, not -1"),
        (("evaluate", "probe", "--seed", "-1"), "seed must be 0 or more, not -1"),
        (("evaluate", "robustness", "--seed", "-1"), "seed must be 0 or more, not -1"),
        (("train", "clip", "-o", "run", "--seed", "-1"), "seed must be 0 or more, not -1"),
        (("vary", "a.png", "--as", "gif"), "--as must be one of strip, animation, pictures"),
        (("vary", "a.png", "-o", "b.png"), "'b.png' is already there"),
    ],
)
def test_one_line_and_nothing_written(args, message, refusal, tmp_path):
    before = sorted(tmp_path.iterdir())
    assert refusal(*args).startswith(message)
    assert sorted(tmp_path.iterdir()) == before


@pytest.fixture(scope="module")
def karlo(tmp_path_factory):
    """An unCLIP with random weights that takes pictures and enlarges what it draws."""
    folder = tmp_path_factory.mktemp("models") / "karlo"
    karlo_tiny.variations().save_pretrained(folder)
    return folder


def test_strips_animations_and_pictures(karlo, run, tmp_path):
    few = ("--steps", "3", "--rounds", "2", "--device", "cpu", "--dtype", "float32")
    more = ("-m", karlo, *few)
    status, out, err = run("vary", "a.png", "-n", "2", "--seed", "5", "--as", "pictures", *more)
    assert status == 0, err
    first, second = out.splitlines()
    assert first == "outputs/00001-5-a-vary.png  seed 5"
    assert second == "outputs/00002-6-a-vary.png  seed 6"
    assert err == "'a.png' is 40 x 30 pixels: its middle is taken at 8 x 8\n"

    # A picture alone, made again as its file says, by the same model.
    status, out, err = run("vary", "--like", second.split()[0], "-o", "again.png")
    assert (status, out) == (0, "again.png  seed 6\n"), err
    with Image.open(tmp_path / second.split()[0]) as one, Image.open(tmp_path / "again.png") as two:
        assert one.size == (SIDE, SIDE)
        assert np.abs(np.asarray(one).astype(int) - np.asarray(two)).max() <= 1

    status, out, err = run("blend", "a.png", "b.png", "--frames", "3", "--as", "animation",
                           "-o", "blend.png", *more)  # fmt: skip
    assert status == 0, err
    with Image.open(tmp_path / "blend.png") as made:
        assert made.n_frames == 3 and made.size == (SIDE, SIDE)
    assert read_parameters(tmp_path / "blend.png").manipulation["shares"] == [0.0, 0.5, 1.0]

    status, out, err = run("edit", "a.png", "--from", "a cat", "--to", "a dog", "--amount", "0.3",
                           "--frames", "2", "-o", "edit.png", *more)  # fmt: skip
    assert (status, out) == (0, "edit.png\n"), err
    with Image.open(tmp_path / "edit.png") as made:
        assert made.size == (2 * SIDE, SIDE)


def test_what_is_not_said_again_stays(karlo, run, tmp_path):
    few = ("-m", karlo, "--steps", "1", "--rounds", "1", "--device", "cpu", "--dtype", "float32")
    for said, shares in (
        (("--frames", "2"), [0.0, 0.8]),
        (("--amount", "0.5"), [0.0, 0.25, 0.5]),
        ((), [0.0, 0.4, 0.8]),
    ):
        status, _, err = run(
            "edit", "--like", "edited.png", *said, "-o", "e.png", "--overwrite", *few
        )
        assert status == 0, err
        assert "is not the model of that picture (x): it will differ" in err
        assert read_parameters(tmp_path / "e.png").manipulation["shares"] == pytest.approx(shares)
