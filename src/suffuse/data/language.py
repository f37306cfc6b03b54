"""Grammar for captions: English articles and plurals, Korean particles and counters."""

from __future__ import annotations

from suffuse.data.objects import PLURALS

NUMBERS_EN = ("no", "one", "two", "three", "four")
NUMBERS_KO = ("영", "한", "두", "세", "네")

# Words whose first letter misleads: "a unicorn", "a UFO".
_CONSONANT_SOUNDS = ("uni", "ufo", "eu", "one")


def a(noun: str) -> str:
    """`noun` with its article: "an owl", "a unicorn"."""
    first = noun.lower()
    vowel = first[0] in "aeiou" and not first.startswith(_CONSONANT_SOUNDS)
    return f"{'an' if vowel else 'a'} {noun}"


def plural(noun: str) -> str:
    """The plural of `noun`: owls, bunches of grapes, sheep."""
    if noun in PLURALS:
        return PLURALS[noun]
    head, of, rest = noun.partition(" of ")
    if of:
        return plural(head) + of + rest
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    if noun.endswith(("tomato", "potato", "volcano")):
        return noun + "es"
    return noun + "s"


def has_final(word: str) -> bool:
    """Whether the last Hangul syllable of `word` ends in a consonant (its batchim)."""
    code = ord(word[-1]) - 0xAC00
    return 0 <= code < 11172 and code % 28 != 0


def particle(word: str, pair: str) -> str:
    """`word` with the right one of two particles, written after-consonant first: "을/를"."""
    after_consonant, after_vowel = pair.split("/")
    return word + (after_consonant if has_final(word) else after_vowel)
