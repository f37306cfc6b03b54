"""`suffuse vary`, `blend` and `edit`: pictures made of pictures, by what they show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from suffuse.cli.console import Bar, Debug, Stopped, note, say, uninterrupted, warn
from suffuse.errors import SuffuseError
from suffuse.systems.manipulation import AMOUNT, ETA, FRAMES, GUIDANCE, ROUNDS, STEPS, N

if TYPE_CHECKING:
    from PIL.Image import Image

    from suffuse.cli.output import Destination
    from suffuse.systems.manipulation import Manipulation
    from suffuse.systems.metadata import Origin

FORMS = ("strip", "animation", "pictures")
_OUT, _RUN = "Output", "Model and machine"

Picture = Annotated[
    Path | None, typer.Argument(help="A picture.", metavar="IMAGE", show_default=False)
]
Steps = Annotated[int | None, typer.Option(help=f"Steps to noise, and back; {STEPS} unless said.")]
Guidance = Annotated[
    float | None,
    typer.Option(help=f"How closely to follow CLIP, 1 = freely; {GUIDANCE:g} unless said."),
]
Rounds = Annotated[
    int | None, typer.Option(help=f"Corrections of a step to noise at most; {ROUNDS} unless said.")
]
Like = Annotated[Path | None, typer.Option(help="Repeat a picture; other flags change it.")]
Form = Annotated[
    str, typer.Option("--as", help="strip, animation or pictures.", rich_help_panel=_OUT)
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="FILE.png, or a folder; else outputs/.", rich_help_panel=_OUT
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace existing files.", rich_help_panel=_OUT)
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", help="Folder or Hub name; else the bundled.", rich_help_panel=_RUN
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda …", rich_help_panel=_RUN)]
Dtype = Annotated[
    str | None,
    typer.Option(help="auto, float32, float16 or bfloat16.", rich_help_panel=_RUN),
]


def vary(
    image: Picture = None,
    n: Annotated[int | None, typer.Option("--n", "-n", help=f"How many; {N} unless said.")] = None,
    eta: Annotated[
        float | None,
        typer.Option(
            help=f"Fresh noise at each step, 0 = the picture itself; {ETA:g} unless said."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Picture i uses seed + i; -1 or none = random.")
    ] = None,
    steps: Steps = None,
    guidance: Guidance = None,
    rounds: Rounds = None,
    like: Like = None,
    form: Form = "strip",
    output: Output = None,
    overwrite: Overwrite = False,
    model: Model = None,
    device: Device = "auto",
    dtype: Dtype = None,
    debug: Debug = False,
) -> None:
    """Draw variations of a picture: what it shows stays, the rest is drawn anew.

    For example: suffuse vary cat.png --n 4 --eta 1
    """
    said = {"image": image, "n": n, "eta": eta, "seed": seed}
    asked, origin = _asked("vary", {"n": N}, said, (steps, guidance, rounds), like)
    _Run(asked, form, output, overwrite)(model, device, dtype, origin)


def blend(
    image: Picture = None,
    other: Annotated[
        Path | None, typer.Argument(help="Another.", metavar="OTHER", show_default=False)
    ] = None,
    frames: Annotated[
        int | None, typer.Option(help=f"How many pictures; {FRAMES} unless said.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Begin all with this seed's noise, and not with the pictures' own."),
    ] = None,
    steps: Steps = None,
    guidance: Guidance = None,
    rounds: Rounds = None,
    like: Like = None,
    form: Form = "strip",
    output: Output = None,
    overwrite: Overwrite = False,
    model: Model = None,
    device: Device = "auto",
    dtype: Dtype = None,
    debug: Debug = False,
) -> None:
    """Walk from one picture to another, through what CLIP sees between them.

    For example: suffuse blend cat.png dog.png --frames 9
    """
    from suffuse.systems.manipulation import evenly

    shares = None if frames is None else evenly(frames, 1.0)
    said = {"image": image, "other": other, "shares": shares, "seed": seed}
    usual = {"shares": evenly(FRAMES, 1.0)}
    asked, origin = _asked("blend", usual, said, (steps, guidance, rounds), like)
    _Run(asked, form, output, overwrite)(model, device, dtype, origin)


def edit(
    image: Picture = None,
    before: Annotated[
        str | None, typer.Option("--from", help="What the picture shows, in words.")
    ] = None,
    after: Annotated[str | None, typer.Option("--to", help="What it shall show.")] = None,
    amount: Annotated[
        float | None, typer.Option(help=f"How far to go, 0 to 1; {AMOUNT:g} unless said.")
    ] = None,
    frames: Annotated[
        int | None, typer.Option(help="So many pictures on the way; 1, its end, unless said.")
    ] = None,
    steps: Steps = None,
    guidance: Guidance = None,
    rounds: Rounds = None,
    like: Like = None,
    form: Form = "strip",
    output: Output = None,
    overwrite: Overwrite = False,
    model: Model = None,
    device: Device = "auto",
    dtype: Dtype = None,
    debug: Debug = False,
) -> None:
    """Change a picture by words: by the difference of what it shows and what it shall show.

    For example: suffuse edit cat.png --from "a cat" --to "a cat on a red background"
    """
    from suffuse.systems.checks import number
    from suffuse.systems.manipulation import evenly

    if like is None and not (before and after):
        raise SuffuseError('say what it shows and what it shall: --from "a cat" --to "a dog"')
    if amount is not None:
        number("amount", amount, 0.0, 1.0)
    said = {"image": image, "before": before, "after": after}
    usual = {"shares": (AMOUNT,)}
    asked, origin = _asked("edit", usual, said, (steps, guidance, rounds), like)
    if amount is not None or frames is not None:
        end = asked.shares[-1] if amount is None else amount
        asked = replace(asked, shares=evenly(len(asked.shares) if frames is None else frames, end))
    _Run(asked, form, output, overwrite)(model, device, dtype, origin)


def _asked(
    kind: str,
    usual: dict[str, Any],
    said: dict[str, Any],
    how: tuple[int | None, float | None, int | None],
    like: Path | None,
) -> tuple[Manipulation, Origin | None]:
    """What the flags ask for and, with --like, the model that the picture came from."""
    from suffuse.systems.manipulation import How, Manipulation
    from suffuse.systems.metadata import read_parameters

    told = {name: value for name, value in said.items() if value is not None}
    told |= {name: str(told[name]) for name in ("image", "other") if name in told}
    given = dict(zip(("steps", "guidance", "rounds"), how))
    ways: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if like is None:
        if "image" not in told:
            raise SuffuseError(f"name a picture: suffuse {kind} cat.png")
        return Manipulation(kind, **{**usual, **told}, how=How(**ways)).check(), None  # type: ignore[arg-type]
    found = read_parameters(like)
    if found.manipulation is None or found.manipulation.get("kind") != kind:
        raise SuffuseError(f"'{like}' was not made by `suffuse {kind}`")
    first = Manipulation.from_json(found.manipulation)
    return replace(first, **told, how=replace(first.how, **ways)).check(), found.origin


class _Run:
    """One call of a command: where its pictures go, and drawing them."""

    def __init__(
        self, asked: Manipulation, form: str, output: Path | None, overwrite: bool
    ) -> None:
        from suffuse.cli.output import Destination

        if form not in FORMS:
            raise SuffuseError(f"--as must be one of {', '.join(FORMS)}, not {form!r}")
        self.asked, self.form = asked.resolve(), form
        files = asked.count if form == "pictures" else 1
        self.out: Destination = Destination(output, files, overwrite)
        self.out.prepare()
        self.drawn: list[Image] = []
        self.kept: list[Path] = []

    def __call__(
        self, model: str | None, device: str, dtype: str | None, like: Origin | None
    ) -> None:
        from suffuse.systems.metadata import Origin
        from suffuse.systems.unclip_load import load_unclip

        if like is not None:
            model, dtype = model or like.source, dtype or like.dtype
        with Bar() as bar:
            system = load_unclip(model, device=device, dtype=dtype or "auto")
            chosen = str(system.dtype).removeprefix("torch.")
            origin = Origin(system.info.name, model, system.info.hash(), chosen)
            if like is not None and (line := like.unlike(origin)):
                with bar.hidden():
                    warn(line)
            try:
                self._draw(system, origin, bar)
            except KeyboardInterrupt:
                kept = ", ".join(map(str, self.kept)) or "no picture was finished"
                raise Stopped(f"stopped; {'kept ' if self.kept else ''}{kept}") from None

    def _draw(self, system: Any, origin: Origin, bar: Bar) -> None:
        from suffuse.systems.manipulate import draw, note_of, work

        for source in self.asked.sources:
            if line := note_of(source, system.decoder.size):
                with bar.hidden():
                    note(line)
        done, total = 0, work(self.asked)

        def tick() -> None:
            nonlocal done
            done += 1
            bar.step(self.asked.kind, done, total)

        for i, picture in enumerate(draw(system, self.asked, tick)):
            self.drawn.append(picture)
            if self.form == "pictures":
                self._keep(self.asked.alone(i), picture, (), origin, bar)
        if self.form == "animation":
            self._keep(self.asked, self.drawn[0], self.drawn[1:], origin, bar)
        elif self.form == "strip":
            from suffuse.systems.film import side_by_side

            self._keep(self.asked, side_by_side(self.drawn), (), origin, bar)

    def _keep(
        self, asked: Manipulation, picture: Image, frames: Any, origin: Origin, bar: Bar
    ) -> None:
        from suffuse.systems.metadata import describe_manipulation

        about = describe_manipulation(asked, origin)
        stems = "-".join(Path(str(source)).stem for source in asked.sources)
        with uninterrupted(), bar.hidden():
            name = self.out.next(asked.seed or 0, f"{stems} {asked.kind}")
            self.kept.append(self.out.save(picture, name, about, frames))
            seed = "" if asked.seed is None else f"  seed {asked.seed}"
            say(f"{self.kept[-1]}{seed}")
