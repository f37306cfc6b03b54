"""Which tokens a word of a text became."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

# A learned word in its usual brackets; a run of letters and digits of any script, with its accents,
# apostrophes and hyphens; or one of anything else.
_WORD = re.compile(r"<[^\s<>]+>|[\w\u0300-\u036f]+(?:['’\-][\w\u0300-\u036f]+)*|[^\s\w]+")


class Word(NamedTuple):
    """A word as it was written, and the places of its tokens, from 0."""

    text: str
    tokens: tuple[int, ...]


def words(text: str, spans: Sequence[tuple[int, int]]) -> list[Word]:
    """The words of a text whose tokens cover these characters, in order; every token is of one.

    spans: (start, end) of each token; blanks before a word may be in its first. A token over
    several words counts for the last of them, one of blanks for the word before it.
    """
    found = list(_WORD.finditer(text))
    tokens: list[list[int]] = [[] for _ in found]
    at = 0
    for place, (_, end) in enumerate(spans):
        while at + 1 < len(found) and found[at + 1].start() < end:
            at += 1
        if tokens:
            tokens[at].append(place)
    return [Word(match.group(), tuple(mine)) for match, mine in zip(found, tokens) if mine]
