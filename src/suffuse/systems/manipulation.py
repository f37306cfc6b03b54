"""What to make of pictures through CLIP's space, in one list of fields: `Manipulation`.

As with `Request`: command-line flags, Python arguments and what is stored in a PNG are these
fields, and nothing here imports torch, so all can be refused before anything heavy starts.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from suffuse.errors import SuffuseError
from suffuse.systems.checks import number, text, whole
from suffuse.systems.request import (
    LARGEST_SEED,
    check_picture,
    find_picture,
    fingerprint,
    open_picture,
)

if TYPE_CHECKING:
    from suffuse.systems.request import Picture

Kind = Literal["vary", "blend", "edit"]
# Where nothing else is said. `amount` is an edit's, `n` of variations, `frames` of a blend.
STEPS, GUIDANCE, ROUNDS, ETA, AMOUNT, N, FRAMES = 100, 2.0, 4, 1.0, 0.5, 4, 9


@dataclass(frozen=True)
class How:
    """How a picture becomes noise, and noise a picture again.

    steps: of either way
    guidance: classifier-free, of both ways; 1 = none, which is turned round most exactly
    rounds: how often a step towards noise is corrected at most
    """

    steps: int = STEPS
    guidance: float = GUIDANCE
    rounds: int = ROUNDS

    def __post_init__(self) -> None:
        whole("steps", self.steps, 1, optional=False)
        whole("rounds", self.rounds, 1, optional=False)
        object.__setattr__(self, "guidance", number("guidance", self.guidance, 0.0))


@dataclass(frozen=True)
class Manipulation:
    """Pictures to be made of one or two others. Raises SuffuseError for what cannot be.

    kind: "vary" image `n` times, "blend" it with `other`, "edit" it by words
    shares: blend: of the way from `image` to `other`; edit: of that from it to what is asked; a
        picture each, 0..1
    before, after: edit: what the picture shows, and what it shall show instead
    eta: vary: the share of fresh noise at each step; 0 draws the picture itself, 1 goes far
    seed: vary: picture i uses seed + i, None = random; blend: all begin with this seed's noise, and
        not with noises between those of the two pictures
    """

    kind: Kind
    image: Picture
    other: Picture | None = None
    before: str = ""
    after: str = ""
    shares: tuple[float, ...] = ()
    n: int = 1
    eta: float = ETA
    seed: int | None = None
    how: How = field(default_factory=How)

    def __post_init__(self) -> None:
        put = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731  (frozen)
        if self.kind not in get_args(Kind):
            raise SuffuseError(f"kind must be one of {', '.join(get_args(Kind))}, not {self.kind}")
        if self.image is None:
            raise SuffuseError(f"name a picture to {self.kind}")
        for name in ("image", "other"):
            check_picture(name, getattr(self, name))
        whole("n", self.n, 1, optional=False)
        put("eta", number("eta", self.eta, 0.0))
        seed = whole("seed", self.seed, -1, optional=True)
        put("seed", None if seed == -1 else seed)
        if seed is not None and seed + self.n - 1 > LARGEST_SEED:
            raise SuffuseError(f"seed must be at most {LARGEST_SEED - self.n + 1}, not {seed}")
        put("shares", tuple(number("share", share, 0.0, 1.0) for share in self.shares))
        if self.kind != "vary" and not self.shares:
            raise SuffuseError(
                f"say how far to {self.kind}: shares needs a number for each picture"
            )
        if self.kind == "blend" and self.other is None:
            raise SuffuseError("a blend needs two pictures")
        for name in ("before", "after") if self.kind == "edit" else ():
            text(name, getattr(self, name))
            if not getattr(self, name).strip():
                raise SuffuseError(
                    f"{name} is empty: say what the picture shows, and what it shall"
                )
        if self.kind == "edit" and self.before.split() == self.after.split():
            raise SuffuseError(f"it shows {self.before!r} already: nothing would change")

    @property
    def count(self) -> int:
        """How many pictures it makes."""
        return self.n if self.kind == "vary" else len(self.shares)

    @property
    def sources(self) -> tuple[Picture, ...]:
        """The pictures that it starts from."""
        return (self.image,) if self.other is None else (self.image, self.other)

    def check(self) -> Manipulation:
        """Opens the pictures too; returns itself. Raises SuffuseError."""
        for source in self.sources:
            open_picture(source, "image", "RGB")
        return self

    def resolve(self) -> Manipulation:
        """With a definite seed where one is needed."""
        if self.kind != "vary" or self.seed is not None:
            return self
        return replace(self, seed=secrets.randbelow(2**32))

    def alone(self, i: int) -> Manipulation:
        """Picture i of a resolved one by itself."""
        if self.kind != "vary":
            return replace(self, shares=self.shares[i : i + 1])
        return replace(self, n=1, seed=(self.seed or 0) + i)

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json` can write. Pictures become their path and SHA-256."""
        found: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("image", "other"):
            found[name] = None if found[name] is None else fingerprint(found[name])
        return found | {"shares": list(self.shares), "how": asdict(self.how)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Manipulation:
        """The reverse of `to_json`; a picture must still have its SHA-256. Raises SuffuseError."""
        values = dict(data)
        try:
            for name in ("image", "other"):
                if values[name] is not None:
                    values[name] = find_picture(values[name], "image")
            return cls(**values | {"shares": tuple(values["shares"]), "how": How(**values["how"])})
        except (KeyError, TypeError) as error:
            raise SuffuseError(f"the record of the picture is damaged: {error}") from None


def evenly(frames: int, end: float) -> tuple[float, ...]:
    """So many shares from 0 to `end`; one alone is `end`. Raises SuffuseError for none."""
    if frames < 1:
        raise SuffuseError(f"frames must be at least 1, not {frames}")
    return tuple(end * i / (frames - 1) for i in range(frames)) if frames > 1 else (end,)
