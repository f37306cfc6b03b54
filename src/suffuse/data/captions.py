"""Sentences about scenes, in English and Korean.

Every pattern says everything: which things, how many, where, on what background. Only now and then
is a plain background left out, so that "a dog" alone is a caption too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from suffuse.data.colours import COLOURS
from suffuse.data.language import NUMBERS_EN, NUMBERS_KO, a, particle
from suffuse.errors import SuffuseError

if TYPE_CHECKING:
    from suffuse.data.scene import Background, Scene

LANGUAGES = ("en", "ko")
WITHOUT_BACKGROUND = 0.06

_SIZE_EN = {"small": "small ", "normal": "", "big": "big "}
_SIZE_KO = {"small": "작은 ", "normal": "", "big": "큰 "}
_OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
_PLACE_KO = {"left": "왼쪽", "right": "오른쪽", "above": "위", "below": "아래"}


class Chooser(Protocol):
    """Picks one of several sentences; always the first for a prompt that must not vary."""

    def __call__(self, options: list[str]) -> str: ...


def describe(scene: Scene, language: str, rng: np.random.Generator) -> str:
    """A sentence about `scene` in "en" or "ko"; the pattern is drawn from `rng`.

    Raises SuffuseError for another language.
    """

    def choose(options: list[str]) -> str:
        return options[int(rng.integers(len(options)))]

    bare = scene.background.bottom is None and rng.random() < WITHOUT_BACKGROUND
    return _describe(scene, language, choose, bare)


def plain(scene: Scene, language: str) -> str:
    """The plainest sentence about `scene`, always the same: what evaluation asks for."""
    return _describe(scene, language, lambda options: options[0], bare=False)


def in_reading_order(scene: Scene) -> Scene:
    """A pair told from the left, or from above: no picture says which of two was named first."""
    if scene.relation not in ("right", "below"):
        return scene
    return replace(scene, placed=scene.placed[::-1], relation=_OPPOSITE[scene.relation])


def _describe(scene: Scene, language: str, choose: Chooser, bare: bool) -> str:
    if language == "en":
        what = _what_en(scene, choose)
        return what if bare else _with_background_en(what, scene.background, choose)
    if language == "ko":
        what = _what_ko(scene, choose)
        return what if bare else _with_background_ko(what, scene.background, choose)
    raise SuffuseError(f"captions are written in {' and '.join(LANGUAGES)}, not in {language!r}")


def _what_en(scene: Scene, choose: Chooser) -> str:
    first = scene.things[0]
    if scene.kind == "single":
        noun = a(_SIZE_EN[scene.size or "normal"] + first.en)
        return choose([noun, noun, noun, f"a picture of {noun}", f"an emoji of {noun}"])
    if scene.kind == "many":
        noun = f"{NUMBERS_EN[scene.count]} {first.en_plural}"
        return choose([noun, noun, noun, f"a picture of {noun}"])
    names = [a(thing.en) for thing in scene.things]
    if scene.kind == "row":
        listed = f"{names[0]}, {names[1]} and {names[2]}"
        return choose([f"{listed} in a row", f"{listed} side by side", listed])
    one, other = names
    relation = scene.relation or "left"
    if relation in ("left", "right"):
        opposite = _OPPOSITE[relation]
        return choose(
            [
                f"{one} to the {relation} of {other}",
                f"{one} {relation} of {other}",
                f"{other} to the {opposite} of {one}",
                f"{one} on the {relation} and {other} on the {opposite}",
            ]
        )
    places = {"above": ("top", "bottom"), "below": ("bottom", "top")}[relation]
    return choose(
        [
            f"{one} {relation} {other}",
            f"{one} {'over' if relation == 'above' else 'under'} {other}",
            f"{other} {_OPPOSITE[relation]} {one}",
            f"{one} at the {places[0]} and {other} at the {places[1]}",
        ]
    )


def _with_background_en(what: str, background: Background, choose: Chooser) -> str:
    if background.bottom is None:
        colour = background.top
        return choose(
            [
                f"{what} on {a(colour)} background",
                f"{what} on {a(colour)} background",
                f"{what} on {colour}",
                f"{what}, {colour} background",
            ]
        )
    top, bottom = background.names
    return choose(
        [
            f"{what} on {a(top)} background fading to {bottom}",
            f"{what}, {top} fading to {bottom}",
            f"{what} on a background fading from {top} to {bottom}",
        ]
    )


def _what_ko(scene: Scene, choose: Chooser) -> str:
    first = scene.things[0]
    if scene.kind == "single":
        noun = _SIZE_KO[scene.size or "normal"] + first.ko
        return choose([noun, noun, f"{noun} 한 {first.ko_counter}"])
    if scene.kind == "many":
        number = NUMBERS_KO[scene.count]
        counted = f"{number} {first.ko_counter}"
        return choose([f"{first.ko} {counted}", f"{counted}의 {first.ko}"])
    names = [thing.ko for thing in scene.things]
    if scene.kind == "row":
        joined = " ".join(particle(name, "과/와") for name in names[:2]) + f" {names[2]}"
        listed = ", ".join(names)
        return choose([f"나란히 있는 {listed}", f"나란히 있는 {joined}", listed])
    one, other = names
    here = _PLACE_KO[scene.relation or "left"]
    there = _PLACE_KO[_OPPOSITE[scene.relation or "left"]]
    return choose(
        [
            f"{other} {here}에 있는 {one}",
            f"{other}의 {here}에 {one}",
            f"{one} {there}에 있는 {other}",
            f"{here}에는 {one}, {there}에는 {other}",
        ]
    )


def _with_background_ko(what: str, background: Background, choose: Chooser) -> str:
    if background.bottom is None:
        colour = COLOURS[background.top]
        return choose(
            [
                f"{colour.ko} 배경에 {what}",
                f"{colour.ko} 배경의 {what}",
                f"{what}, {colour.ko} 배경",
                f"{colour.ko_noun} 배경에 {particle(what, '이/가')} 있는 그림",
            ]
        )
    top, bottom = (COLOURS[name].ko_noun for name in background.names)
    return choose(
        [
            f"{top}에서 {particle(bottom, '으로/로')} 변하는 배경에 {what}",
            f"{what}, {top}에서 {particle(bottom, '으로/로')} 변하는 배경",
        ]
    )
