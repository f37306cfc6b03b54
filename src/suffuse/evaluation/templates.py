"""Sentences about a class, by which a CLIP is asked for it (2103.00020, section 3.1.4).

`{}` stands for the class, `{a}` for the class with its English article, and `{이/가}` for the class
with the one of two Korean particles that fits it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from suffuse.data.captions import LANGUAGES
from suffuse.data.colours import COLOURS
from suffuse.data.language import a, particle
from suffuse.errors import SuffuseError

_PLACE = re.compile(r"\{(a|\w+/\w+)?\}")

# For pictures of any kind.
GENERAL: dict[str, tuple[str, ...]] = {
    "en": (
        "{a}",
        "a photo of {a}",
        "a picture of {a}",
        "a close-up of {a}",
        "a drawing of {a}",
        "a small {}",
        "a big {}",
    ),
    "ko": ("{}", "{} 사진", "{} 그림", "{이/가} 있는 사진", "작은 {}", "큰 {}"),
}

# For scenes of the emoji world, whose captions name the background.
SCENES: dict[str, tuple[str, ...]] = {
    "en": (
        *("{a}", "a small {}", "a big {}"),
        *(f"{{a}} on {a(colour)} background" for colour in COLOURS),
    ),
    "ko": (
        *("{}", "작은 {}", "큰 {}"),
        *(f"{colour.ko} 배경에 {{}}" for colour in COLOURS.values()),
    ),
}


def fill(template: str, name: str) -> str:
    """The sentence about the class called `name`."""

    def put(found: re.Match[str]) -> str:
        kind = found[1]
        if kind is None:
            return name
        return a(name) if kind == "a" else particle(name, kind)

    return _PLACE.sub(put, template)


def check(templates: Sequence[str]) -> None:
    """Raises SuffuseError for one that has no place for the class."""
    for template in templates:
        if not _PLACE.search(template):
            raise SuffuseError(f"a template needs {{}} where the class stands: {template!r}")


def check_language(language: str) -> tuple[str, ...]:
    """The languages that "en", "ko" or "both" stand for. Raises SuffuseError."""
    if language not in (*LANGUAGES, "both"):
        raise SuffuseError(f"lang must be en, ko or both, not {language!r}")
    return LANGUAGES if language == "both" else (language,)
