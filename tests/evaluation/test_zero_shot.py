"""Classes by sentences: templates, class vectors, scores, and retrieval by hand-made vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sight import clip, picture
from torch.nn.functional import normalize, one_hot

from suffuse.errors import SuffuseError
from suffuse.evaluation import retrieval, templates
from suffuse.evaluation.labelled import Seen, see
from suffuse.evaluation.zero_shot import answers, class_vectors, score

CLIP = clip()


def silent(line):
    raise AssertionError(line)


@pytest.mark.parametrize(
    ("template", "name", "sentence"),
    [
        ("{}", "dog", "dog"),
        ("a photo of {a}", "owl", "a photo of an owl"),
        ("{}, {a}", "dog", "dog, a dog"),
        ("{이/가} 있는 사진", "사과", "사과가 있는 사진"),
        ("{이/가} 있는 사진", "감", "감이 있는 사진"),
        ("a {} of {a}", "{}", "a {} of a {}"),
    ],
)
def test_a_template_is_filled(template, name, sentence):
    assert templates.fill(template, name) == sentence


def test_a_template_without_a_place_is_refused():
    templates.check([*templates.GENERAL["en"], *templates.GENERAL["ko"]])
    templates.check([*templates.SCENES["en"], *templates.SCENES["ko"]])
    with pytest.raises(SuffuseError, match=r"needs \{\} where the class stands: 'a dog'"):
        templates.check(["a {}", "a dog"])
    with pytest.raises(SuffuseError, match="lang must be en, ko or both, not 'de'"):
        templates.check_language("de")


def test_a_class_is_the_mean_of_its_sentences():
    asked = ("a photo of {a}", "a big {}")
    found = class_vectors(CLIP, ["dog", "owl"], asked, silent)
    for row, sentences in zip(
        found, (["a photo of a dog", "a big dog"], ["a photo of an owl", "a big owl"])
    ):
        mean = normalize(CLIP.texts(sentences).mean(0), dim=0)
        assert torch.allclose(row, mean, atol=1e-5)


def test_scores_count_right_answers():
    # Ten classes on axes of their own; each picture leans to its own class, but two.
    classes = torch.eye(10)
    labels = np.array([0, 0, 1, 2, 3])
    leaning = torch.tensor([0, 0, 1, 7, 8])
    vectors = one_hot(leaning, 10).float() + 0.1 * one_hot(torch.tensor([5, 5, 5, 2, 5]), 10)
    found = score(Seen(vectors, labels, np.arange(5)), classes, [f"c{i}" for i in range(10)])
    assert (found.count, found.classes, found.top1) == (5, 10, pytest.approx(3 / 5))
    assert found.top5 >= 4 / 5 and found.by_class == {"c0": 1, "c1": 1, "c2": 0, "c3": 0}
    names, chances = answers(Seen(vectors, labels, np.arange(5)), classes, 100.0)
    assert names.tolist() == leaning.tolist() and (chances > 0.99).all()


def test_texts_that_are_equal_are_the_same_one():
    texts = ["a dog", "a cat", "a dog", "a red apple on a blue background"]
    vectors = CLIP.texts(texts)
    found = retrieval.retrieve(CLIP, vectors, texts, silent)
    assert (found.count, found.texts) == (4, 3)
    assert (found.text_at_1, found.text_at_5, found.picture_at_1) == (1, 1, 1)
    swapped = retrieval.retrieve(CLIP, vectors[[1, 0, 2, 3]], texts, silent)
    # Two pictures of four find the other's text; both of these texts have a picture of another.
    assert (swapped.text_at_1, swapped.text_at_5) == (0.5, 1)
    assert swapped.picture_at_1 < 1


KNOWN = {text: CLIP.texts([text])[0] for text in ("a dog", "a cat", "two cats", "a car")}


@settings(max_examples=25)
@given(st.integers(2, 12), st.integers(0, 2**32 - 1))
def test_retrieval_is_counted_as_by_hand(n, seed):
    rng = np.random.default_rng(seed)
    texts = [list(KNOWN)[i] for i in rng.integers(4, size=n)]
    vectors = normalize(torch.from_numpy(rng.normal(size=(n, CLIP.width))).float(), dim=1)
    found = retrieval.retrieve(CLIP, vectors, texts, silent)
    right = 0
    for vector, text in zip(vectors, texts):
        cosines = {other: float(KNOWN[other] @ vector) for other in set(texts)}
        right += max(cosines, key=cosines.get) == text
    assert found.text_at_1 == pytest.approx(right / n)


def test_captions_of_scenes_and_of_folders(tmp_path):
    scenes, texts = retrieval.captioned_scenes(5, 8, 0, ("en", "ko"))
    assert len(scenes) == 5 and [len(lines) for lines in texts.values()] == [5, 5]
    assert all("background" in line for line in texts["en"])
    assert all("배경" in line for line in texts["ko"])
    for i in range(3):
        picture(i).save(tmp_path / f"{i}.png")
    with pytest.raises(SuffuseError, match=r"none of the pictures in .* has a caption"):
        retrieval.captioned_folder(tmp_path, 9)
    (tmp_path / "1.txt").write_text("a dog")
    given, texts = retrieval.captioned_folder(tmp_path, 9)
    assert texts == {"captions": ["a dog"]}
    assert torch.allclose(see(CLIP, given).vectors, CLIP.images([picture(1)]), atol=1e-5)
