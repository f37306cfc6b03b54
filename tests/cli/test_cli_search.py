"""`suffuse search`: answers, the index it leaves, and refusals."""

import json

import pytest
from PIL import Image
from sight import clip, picture, saved


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("search")
    saved(root / "clip")
    saved(root / "other", 2)
    (root / "photos").mkdir()
    for i in range(4):
        picture(i).save(root / "photos" / f"{i}.png")
    (root / "photos" / "broken.jpg").write_text("no")
    (root / "empty").mkdir()
    return root


@pytest.fixture
def tmp_path(folder):
    return folder


def test_by_words_then_by_a_picture(folder, run):
    by = ("--clip", "clip", "--device", "cpu")
    status, out, err = run("search", "photos", "a red apple", *by, "--sheet", "s.png", "--json")
    assert status == 0, err
    assert "indexed 4 new: 4 in photos/.suffuse/search.safetensors" in err
    assert "skipped 1 broken picture: broken.jpg" in err and "wrote s.png" in err
    found = json.loads(out)
    assert found["pictures"] == found["new"] == 4 and "broken.jpg" in found["broken"]
    cosines = clip().images([picture(i) for i in range(4)]) @ clip().texts(["a red apple"])[0]
    order = cosines.argsort(descending=True).tolist()
    assert [hit["path"] for hit in found["found"]] == [f"photos/{i}.png" for i in order]
    assert Image.open(folder / "s.png").width > 4 * 160
    picture(2).resize((80, 64)).save(folder / "like.png")
    status, out, err = run("search", "photos", "--image", "like.png", *by, "--top", "2")
    assert status == 0, err
    assert "indexed" not in err
    rows = [line.split() for line in out.splitlines() if line.strip()][2:]
    assert len(rows) == 2 and rows[0][1] == "photos/2.png" and float(rows[0][0]) > 0.99


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("photos",), "say what to look for"),
        (("photos", "a", "--image", "x.png"), "look for a text or for an --image, not for both"),
        (("photos/0.png", "a"), "'photos/0.png' is no folder"),
        (("photos", " "), "the text is empty"),
        (("photos", "a", "--sheet", "s.jpg"), "sheets are written as PNG"),
        (("empty", "a", "--clip", "clip"), "'empty' holds no pictures"),
    ],
)
def test_refuses(args, message, refusal):
    assert refusal("search", *args).startswith(message)


def test_an_index_of_another_model_is_refused(folder, run, refusal):
    kept = ("--index", "kept", "--device", "cpu")
    status, _, err = run("search", "photos", "a", "--clip", "clip", *kept)
    assert status == 0, err
    said = refusal("search", "photos", "a", "--clip", "other", *kept)
    assert said.startswith("the index 'kept' was built with clip (") and "this is other (" in said
