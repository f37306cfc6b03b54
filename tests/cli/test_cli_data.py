"""`suffuse data` as it is typed."""

import json

import pytest
from PIL import Image


@pytest.fixture
def scenes(run, tmp_path):
    status, out, err = run(
        *("data", "emoji", "--count", 6, "--output", "scenes", "--language", "ko"),
        *("--objects", 6),
    )
    assert (status, out, err) == (0, "scenes\n", "")
    return tmp_path / "scenes"


def test_from_scenes_to_a_report(scenes, run, tmp_path):
    lines = (scenes / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["file_name"] for line in lines] == [f"{i:06}.png" for i in range(6)]
    (scenes / "broken.png").write_bytes(b"hello")
    (scenes / "copy.png").write_bytes((scenes / "000001.png").read_bytes())
    status, out, err = run(
        *("data", "check", "scenes", "--size", 128, "--sheet", "sheet.png", "--json", "r.json")
    )
    assert status == 0, err
    assert err == "wrote sheet.png\nwrote r.json\n"
    for line in ("broken.png: not a picture", "000001.png = copy.png", "128 x 128"):
        assert line in out
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["good"] == 7 and report["size"] == 128
    assert report["broken"] == {"broken.png": "not a picture"}
    assert report["captions"]["missing"] == 1
    assert report["captions"]["scripts"] == {"hangul": 6}
    assert Image.open(tmp_path / "sheet.png").format == "PNG"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("check", "nowhere"), "there is no folder or file 'nowhere'"),
        (("check", "empty"), "'empty' holds no pictures, no .parquet and no .tar files"),
        (("check", "some", "--sheet", "s.jpg"), "a contact sheet is a PNG: name 's.jpg'"),
        (("check", "some", "--json", "notes.txt"), "'notes.txt' is already there: add --overwrite"),
        (("check", "some", "--json", "no/r.json"), "cannot write 'no/r.json': there is no folder"),
        (("check", "some"), "none of the pictures of 'some' can be read: a.png: not a picture"),
        (("emoji", "-o", "empty"), "'empty' is already there: choose another name"),
        (("emoji", "-o", "x", "--language", "fr"), "captions are in en, ko or both, not in 'fr'"),
        (("emoji", "-o", "x", "--objects", "0"), "objects must be between 1 and 260, not 0"),
        (("emoji", "-o", "x", "--seed", "-1"), "seed must be 0 or more, not -1"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(args, message, tmp_path, refusal):
    (tmp_path / "empty").mkdir()
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "a.png").write_bytes(b"hello")
    (tmp_path / "notes.txt").write_text("x")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    assert refusal("data", *args).startswith(message)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
