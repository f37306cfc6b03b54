"""What the commands that measure a CLIP share: options, and the pictures that these mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from suffuse.cli.console import Bar, note, warn
from suffuse.errors import SuffuseError

if TYPE_CHECKING:
    from torch import Tensor

    from suffuse.evaluation.labelled import Labelled, Seen
    from suffuse.systems.clip import Clip

Folder = Annotated[
    Path | None,
    typer.Argument(
        help="Pictures, with a folder for each class; else held-out emoji scenes.",
        metavar="FOLDER",
        show_default=False,
    ),
]
Names = Annotated[
    list[str] | None,
    typer.Option("--name", help="Of a class, in the order of the folders; may be repeated."),
]
NamesFile = Annotated[
    Path | None, typer.Option("--names", help="A file of such names, one a line.")
]
Templates = Annotated[
    list[str] | None,
    typer.Option("--template", help="Such as 'a photo of {a}'; may be repeated; else our own."),
]
Lang = Annotated[
    str | None, typer.Option(help="en or ko; of emoji scenes both unless said.", metavar="LANG")
]
ClipSource = Annotated[
    str | None, typer.Option("--clip", help="Folder, file or Hub name; else the bundled.")
]
Objects = Annotated[int | None, typer.Option(help="Emoji in the world of the scenes.")]
Count = Annotated[int, typer.Option("--n", "-n", help="At most so many pictures.")]
Seed = Annotated[int, typer.Option(help="Of what is drawn.")]


@dataclass(frozen=True)
class Asked:
    """The options that say what the classes are and how they are asked for."""

    folder: Path | None
    name: Sequence[str] | None
    names: Path | None
    template: Sequence[str] | None
    lang: str | None
    objects: int | None

    def check(self) -> None:
        """Refuses what can be judged before anything is opened. Raises SuffuseError."""
        from suffuse.evaluation import templates

        if self.folder is not None and self.objects is not None:
            raise SuffuseError("--objects is for emoji scenes: leave it or the folder out")
        if self.folder is None and (self.name or self.names):
            raise SuffuseError("emoji scenes have names of their own: --name is for a folder")
        if self.name and self.names:
            raise SuffuseError("--name and --names both name the classes: give one")
        if self.folder is not None and self.lang == "both":
            raise SuffuseError("the classes of a folder have names in one language: en or ko")
        templates.check(self.template or ())
        _ = self.languages

    @property
    def languages(self) -> tuple[str, ...]:
        from suffuse.evaluation.templates import check_language

        return check_language(self.lang or ("both" if self.folder is None else "en"))

    def called(self) -> list[str]:
        """The names of classes that were given. Raises SuffuseError."""
        if self.names is None:
            return list(self.name or ())
        try:
            lines = self.names.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not text in UTF-8"
            raise SuffuseError(f"cannot read '{self.names}': {why}") from None
        return [line.strip() for line in lines if line.strip()]

    def open(self, n: int | None, seed: int = 0, split: str = "test") -> Labelled:
        """At most `n` pictures of each class of a folder, or `n` scenes. Raises SuffuseError."""
        from suffuse.evaluation.labelled import emoji_singles, open_classes, world_of

        if self.folder is None:
            return emoji_singles(world_of(self.objects), n or 1, seed, split)
        return open_classes(self.folder, self.called(), self.languages[0], n)

    def classes(self, clip: Clip, given: Labelled) -> dict[str, Tensor]:
        """What pictures are compared with, by language: (C, D)."""
        from suffuse.evaluation.templates import GENERAL, SCENES
        from suffuse.evaluation.zero_shot import class_vectors

        usual = SCENES if self.folder is None else GENERAL
        return {
            language: class_vectors(
                clip, given.names[language], self.template or usual[language], warn
            )
            for language in self.languages
        }

    def head(self, clip: Clip) -> dict[str, object]:
        """The first lines of a report."""
        data = "held-out emoji scenes" if self.folder is None else str(self.folder)
        return {"clip": clip.info.name, "data": data}


def look(clip: Clip, given: Labelled, batch: int, bar: Bar, told: str = "looking") -> Seen:
    """Embeds the pictures with a bar; says which were broken. Raises SuffuseError."""
    from suffuse.evaluation.labelled import see

    known = len(given.broken.found)
    seen = see(clip, given, batch, lambda done: bar.step(told, done, len(given)))
    if len(given.broken.found) > known:
        with bar.hidden():
            note(given.broken.notice() or "")
    return seen


def share(value: float) -> str:
    """A share as the tables have it."""
    return f"{value:.1%}"
