"""`suffuse vary`, `blend` and `edit`."""

import pytest
from PIL import Image

from suffuse.systems.manipulation import Manipulation
from suffuse.systems.metadata import Origin, describe_manipulation, write_png


@pytest.fixture(autouse=True)
def pictures(tmp_path):
    picture = Image.linear_gradient("L").resize((40, 30)).convert("RGB")
    picture.save(tmp_path / "a.png")
    picture.rotate(180).save(tmp_path / "b.png")
    asked = Manipulation("vary", str(tmp_path / "a.png"), seed=1)
    write_png(picture, tmp_path / "varied.png", describe_manipulation(asked, Origin("x")))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("vary",), "name a picture: suffuse vary cat.png"),
        (("blend", "a.png"), "a blend needs two pictures"),
        (("blend", "a.png", "b.png", "--frames", "0"), "frames must be at least 1, not 0"),
        (("edit", "a.png", "--from", "a cat"), "after is empty: say what the picture shows"),
        (("edit", "--like", "varied.png"), "'varied.png' was not made by `suffuse edit`"),
        (("vary", "a.png", "--as", "gif"), "--as must be one of strip, animation, pictures"),
        (("vary", "a.png", "-o", "b.png"), "'b.png' is already there"),
    ],
)
def test_one_line_and_nothing_written(args, message, refusal, tmp_path):
    before = sorted(tmp_path.iterdir())
    assert refusal(*args).startswith(message)
    assert sorted(tmp_path.iterdir()) == before
