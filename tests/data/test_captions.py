"""Captions: grammar in both languages, and sentences that say what the scene shows."""

from __future__ import annotations

import numpy as np
import pytest

from suffuse.data import captions
from suffuse.data.emoji import Background, Placed, Scene, World
from suffuse.data.language import a, has_final, particle, plural
from suffuse.errors import SuffuseError

THINGS = {thing.en: thing for thing in World(objects=260).things}


def scene(kind: str, *names: str, background: Background, **rest: str) -> Scene:
    placed = tuple(Placed(THINGS[name], 56 * i, 0, 40) for i, name in enumerate(names))
    return Scene(kind, placed, background, **rest)


def sentences(shown: Scene, language: str) -> set[str]:
    return {shown.caption(language, np.random.default_rng(i)) for i in range(300)}


@pytest.mark.parametrize(
    ("noun", "with_article", "many"),
    [
        ("owl", "an owl", "owls"),
        ("unicorn", "a unicorn", "unicorns"),
        ("ear of corn", "an ear of corn", "ears of corn"),
        ("bunch of grapes", "a bunch of grapes", "bunches of grapes"),
        ("fish", "a fish", "fish"),
        ("butterfly", "a butterfly", "butterflies"),
        ("key", "a key", "keys"),
        ("bus", "a bus", "buses"),
        ("tomato", "a tomato", "tomatoes"),
        ("flamingo", "a flamingo", "flamingos"),
        ("loaf of bread", "a loaf of bread", "loaves of bread"),
        ("orange heart", "an orange heart", "orange hearts"),
    ],
)
def test_english_nouns(noun: str, with_article: str, many: str) -> None:
    assert a(noun) == with_article
    assert plural(noun) == many


def test_korean_particles_follow_the_final_consonant() -> None:
    assert has_final("고래상") and not has_final("나무")
    assert particle("사자", "을/를") == "사자를"
    assert particle("문", "이/가") == "문이"
    assert particle("토끼", "은/는") == "토끼는"
    assert particle("파란색", "으로/로") == "파란색으로"


def test_every_korean_name_is_korean() -> None:
    for thing in THINGS.values():
        assert all("가" <= letter <= "힣" or letter == " " for letter in thing.ko), thing


def test_singles() -> None:
    shown = scene("single", "red apple", background=Background("blue"), size="normal")
    assert captions.plain(shown, "en") == "a red apple on a blue background"
    assert captions.plain(shown, "ko") == "파란 배경에 빨간 사과"
    english = sentences(shown, "en")
    assert {"a red apple", "a red apple on blue", "an emoji of a red apple on blue"} <= english
    assert "파란색 배경에 빨간 사과 한 개가 있는 그림" in sentences(shown, "ko")
    big = scene("single", "owl", background=Background("orange"), size="big")
    assert captions.plain(big, "en") == "a big owl on an orange background"
    assert captions.plain(big, "ko") == "주황색 배경에 큰 부엉이"


def test_shapes_carry_their_own_colour() -> None:
    shown = scene("single", "green circle", background=Background("pink"), size="small")
    assert captions.plain(shown, "en") == "a small green circle on a pink background"
    assert captions.plain(shown, "ko") == "분홍색 배경에 작은 초록색 원"


def test_many() -> None:
    shown = scene("many", "dog", "dog", "dog", background=Background("red", "sky blue"))
    assert captions.plain(shown, "en") == "three dogs on a red background fading to sky blue"
    assert captions.plain(shown, "ko") == "빨간색에서 하늘색으로 변하는 배경에 강아지 세 마리"


def test_pairs_say_the_same_thing_from_both_sides() -> None:
    shown = scene("pair", "dog", "cat", background=Background("white"), relation="left")
    assert captions.plain(shown, "en") == "a dog to the left of a cat on a white background"
    assert captions.plain(shown, "ko") == "하얀 배경에 고양이 왼쪽에 있는 강아지"
    assert "a cat to the right of a dog on white" in sentences(shown, "en")
    assert "하얀 배경에 강아지 오른쪽에 있는 고양이" in sentences(shown, "ko")
    shown = scene("pair", "dog", "cat", background=Background("white"), relation="below")
    assert "a cat above a dog on white" in sentences(shown, "en")
    assert "a dog under a cat on white" in sentences(shown, "en")
    assert "하얀 배경에 강아지 위에 있는 고양이" in sentences(shown, "ko")


def test_rows() -> None:
    shown = scene("row", "dog", "owl", "car", background=Background("gray"))
    assert captions.plain(shown, "en") == "a dog, an owl and a car in a row on a gray background"
    assert "나란히 있는 강아지와 부엉이와 자동차, 회색 배경" in sentences(shown, "ko")


def test_another_language_is_refused() -> None:
    shown = scene("single", "dog", background=Background("blue"), size="normal")
    with pytest.raises(SuffuseError, match="en and ko"):
        captions.plain(shown, "fr")
