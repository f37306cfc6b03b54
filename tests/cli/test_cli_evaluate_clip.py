"""`suffuse evaluate` of a CLIP, and `suffuse generate --best-of`: answers and refusals."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
from PIL import Image
from sight import clip, picture, saved

from suffuse.cli.classes import Asked
from suffuse.errors import SuffuseError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("classes")
    saved(root / "clip")
    for name in ("cat", "big_dog"):
        (root / "photos" / name).mkdir(parents=True)
        for i in range(3):
            picture(len(name) + i).save(root / "photos" / name / f"{i}.png")
    return root


@pytest.fixture
def tmp_path(folder):
    return folder


BY = ("--clip", "clip", "--device", "cpu")


@pytest.fixture
def answer(run):
    """answer(*args): the JSON of a command."""

    def answer(*args):
        status, out, err = run("evaluate", *args, *BY, "--json", "-")
        assert status == 0, err
        return json.loads(out)

    return answer


def test_zero_shot_names_the_classes_of_a_folder(answer, run):
    found = answer("zero-shot", "photos", "--template", "{}")
    right = []
    for label, name in enumerate(("big_dog", "cat")):
        seen = clip().images([picture(len(name) + i) for i in range(3)])
        right += ((seen @ clip().texts(["big dog", "cat"]).T).argmax(1) == label).tolist()
    assert (found["pictures"], found["classes"]) == (6, 2)
    assert found["en"]["top1"] == pytest.approx(sum(right) / 6) and found["en"]["top5"] == 1
    status, out, err = run("evaluate", "zero-shot", "photos/cat", "--name", "a", "--name", "b", *BY)
    assert status == 0, err
    rows = [line.split() for line in out.splitlines() if line.strip()][2:]
    assert [row[0] for row in rows] == ["0.png", "1.png", "2.png"]
    assert all(row[1] in "ab" and 50 <= float(row[2].rstrip("%")) <= 100 for row in rows)


def test_scenes_in_two_languages(answer):
    found = answer("zero-shot", "--n", 6, "--objects", 4)
    assert found["pictures"] == 6 and {"en", "ko"} <= set(found)
    found = answer("retrieval", "--n", 8, "--objects", 8)
    assert found["en"]["count"] == 8 and 0 <= found["ko"]["text_at_1"] <= 1


def test_probe_and_robustness(folder, answer, run):
    found = answer("probe", "photos", "--shots", 1)
    assert (found["trained"], found["tested"]) == (2, 4) and len(found["curve"]) == 1
    args = ("evaluate", "robustness", "photos", "--severity", 2, *BY, "--json", "r.json")
    status, out, err = run(*args, "--overwrite")
    assert status == 0, err
    kinds = ["clean", "noise", "blur", "sketch", "texture", "compression"]
    rows = [line.split() for line in out.splitlines() if line.strip()][-len(kinds) :]
    scores = json.loads((folder / "r.json").read_text())["scores"]
    assert rows == [[row["corruption"], f"{row['en']:.1%}"] for row in scores]
    assert [row[0] for row in rows] == kinds


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": ["a"]}, "emoji scenes have names of their own"),
        ({"folder": Path("x"), "template": ["a dog"]}, r"a template needs {} where"),
        ({"folder": Path("x"), "objects": 4}, "--objects is for emoji scenes"),
        ({"folder": Path("x"), "lang": "both"}, "the classes of a folder have names in one"),
        ({"folder": Path("x"), "name": ["a"], "names": Path("n")}, "--name and --names both"),
        ({"lang": "de"}, "lang must be en, ko or both, not 'de'"),
    ],
)
def test_what_is_asked_for_must_make_sense(given, message):
    with pytest.raises(SuffuseError) as caught:
        Asked(**{field.name: given.get(field.name) for field in fields(Asked)}).check()
    assert str(caught.value).startswith(message)


def test_names_from_a_file(tmp_path):
    (tmp_path / "names.txt").write_text("\ufeffa big dog\n\n 고양이 \n", encoding="utf-8")
    asked = Asked(Path("x"), None, tmp_path / "names.txt", None, None, None)
    assert asked.called() == ["a big dog", "고양이"]
    (tmp_path / "names.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SuffuseError, match="it is not text in UTF-8"):
        asked.called()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("retrieval", "photos", *BY), "none of the pictures in 'photos' has a caption"),
        (("probe", "photos", "--c", "0"), "c must be above 0, not 0"),
        (("robustness", "--severity", "6"), "severities are 1 to 5, not 6"),
        (("prompts", *BY), "--clip judges the pictures of --best-of"),
    ],
)
def test_refuses(args, message, refusal):
    assert refusal("evaluate", *args).startswith(message)


def test_generate_keeps_the_best_and_repeats_it(folder, run, refusal):
    drawn = ("generate", "a red apple", "--seed", 3, "--steps", 1, "--width", 32, "--height", 32)
    status, out, err = run(*drawn, "--best-of", 3, "-n", 2, *BY, "-o", "b.png", "--film", "f.png")
    assert status == 0, err
    pairs = [line.split("  seed ") for line in out.splitlines()]
    assert [path for path, _ in pairs] == ["b-1.png", "b-2.png"]
    assert len({seed for _, seed in pairs} & {"3", "4", "5"}) == 2
    assert (folder / "f-2.png").exists()
    status, out, err = run("generate", "--like", "b-1.png", "-o", "again.png")
    assert status == 0, err
    one, other = (Image.open(Path(folder, name)) for name in ("b-1.png", "again.png"))
    assert one.tobytes() == other.tobytes()
    assert refusal(*drawn, "--best-of", 1, "-n", 2).startswith("best_of is how many are drawn")
    assert refusal(*drawn, "--clip", "clip").startswith("--clip judges the pictures of --best-of")
    said = refusal(*drawn, "--best-of", 2, "--preview", 1)
    assert said.startswith("a preview is of a picture to be kept")
