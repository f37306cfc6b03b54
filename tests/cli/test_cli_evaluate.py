"""`suffuse evaluate prompts`: what it refuses, and its answer for a model."""

import json

import pytest


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--lang", "tlh"), "lang must be en, ko or both, not 'tlh'"),
        (("--n", "0"), "n must be at least 1, not 0"),
        (("--steps", "0"), "steps must be at least 1"),
        (("--keep", "/dev/null/x"), "cannot write in '/dev/null/x'"),
    ],
)
def test_refuses(args, message, refusal):
    assert refusal("evaluate", "prompts", *args).startswith(message)


def test_answers_in_json(run, tmp_path):
    args = ("--n", "2", "--steps", "2", "--json", "--keep", "kept")
    status, out, err = run("evaluate", "prompts", *args)
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["n"] == 2
    for language in ("en", "ko"):
        assert 0 <= found[language]["object_accuracy"] <= 1
        assert len(found[language]["verdicts"]) == 2
    assert len(list((tmp_path / "kept").glob("*.png"))) == 4
