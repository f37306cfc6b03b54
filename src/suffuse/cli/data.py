"""`suffuse data`: look at the pictures before training on them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from suffuse.cli.console import Bar, Debug, note, say
from suffuse.cli.report import check_new, not_negative, write
from suffuse.errors import SuffuseError

if TYPE_CHECKING:
    from suffuse.data.check import Report, Spread

app = typer.Typer(no_args_is_help=True, help="Check or make pictures to train on.")

SHOWN = 10  # names of each kind of trouble; all of them are in the JSON


@app.callback()
def _data() -> None:
    """Check or make pictures to train on."""


@app.command()
def check(
    folder: Annotated[
        str,
        typer.Argument(
            help="A folder of pictures, of .tar or .parquet files, one such file, "
            "or owner/name on the Hub."
        ),
    ],
    size: Annotated[int, typer.Option(help="Pixels a side that you want to train at.")] = 256,
    sheet: Annotated[Path | None, typer.Option(help="Draw a contact sheet, a .png.")] = None,
    as_json: Annotated[
        Path | None, typer.Option("--json", help="Write all that was found to a file.")
    ] = None,
    image: Annotated[str | None, typer.Option(help="The column of the pictures.")] = None,
    caption: Annotated[str | None, typer.Option(help="The column of the captions.")] = None,
    split: Annotated[str, typer.Option(help="Of a data set that has several.")] = "train",
    step: Annotated[int, typer.Option(help="Sides of buckets are multiples of it.")] = 64,
    overwrite: Annotated[bool, typer.Option(help="Replace the files of a check before.")] = False,
    debug: Debug = False,
) -> None:
    """Read every picture once; say what there is, and name what is broken or doubled."""
    for path in (sheet, as_json):
        check_new(path, overwrite)
    if sheet is not None and sheet.suffix.lower() != ".png":
        raise SuffuseError(f"a contact sheet is a PNG: name '{sheet}' something.png")
    from suffuse.data.buckets import Buckets
    from suffuse.data.check import check as look
    from suffuse.data.sheet import contact_sheet
    from suffuse.data.sources import Source

    buckets = Buckets(step)
    buckets.shapes(size)
    with Bar() as bar:
        table = Source(folder, image, caption, split).table()
        report = look(table, size, buckets, lambda i, n: bar.step("reading pictures", i, n))
    if sheet is not None:
        contact_sheet(table, sheet)
    if as_json is not None:
        found = {"source": folder, "size": size, **dataclasses.asdict(report)}
        write(as_json, json.dumps(found, ensure_ascii=False, indent=2) + "\n")
    _show(report, folder, size)
    for path in (sheet, as_json):
        if path is not None:
            note(f"wrote {path}")


@app.command()
def emoji(
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder to make.")],
    count: Annotated[int, typer.Option("--count", "-n", help="How many scenes.")] = 1000,
    language: Annotated[str, typer.Option(help="Of the captions: en, ko or both.")] = "en",
    objects: Annotated[int | None, typer.Option(help="Size of the world.")] = None,
    split: Annotated[
        str, typer.Option(help="train, or test: what training never shows.")
    ] = "train",
    seed: Annotated[int, typer.Option(help="Another seed, other scenes.")] = 0,
    debug: Debug = False,
) -> None:
    """Write emoji scenes as a folder of pictures with captions, to try things with."""
    from suffuse.data.emoji import World
    from suffuse.data.export import write_scenes
    from suffuse.data.objects import OBJECTS
    from suffuse.data.stream import EmojiStream

    if objects is not None and not 1 <= objects <= len(OBJECTS):
        raise SuffuseError(f"objects must be between 1 and {len(OBJECTS)}, not {objects}")
    not_negative(seed)
    world = World() if objects is None else World(objects=objects)
    stream = EmojiStream(world, language, split)
    with Bar() as bar:
        write_scenes(stream, count, output, seed, lambda i, n: bar.step("drawing", i, n))
    say(str(output))


def _show(report: Report, folder: str, size: int) -> None:
    from suffuse.cli.table import show

    said = report.captions
    show(
        {
            "source": folder,
            "pictures": {
                "good": report.good,
                "broken": len(report.broken),
                "named but not there": len(report.not_there),
                "width": _range(report.width),
                "height": _range(report.height),
                f"smaller than {size}": report.small,
            },
            "captions": {
                "described": said.described,
                "missing": said.missing,
                "empty": said.empty,
                "several": said.several,
                "words": _range(said.words),
                "characters": _range(said.characters),
                "written in": [f"{name} {n}" for name, n in said.scripts.items()],
            },
            f"buckets at {size}": report.buckets,
            "equal files": _lines(_groups(report.same)),
            "look alike": _lines(_groups(report.alike)),
            "broken": _lines([f"{name}: {why}" for name, why in report.broken.items()]),
            "not there": _lines([f"{name}: {why}" for name, why in report.not_there.items()]),
        }
    )


def _range(spread: Spread | None) -> str:
    if spread is None:
        return ""
    return f"{spread.least:g} to {spread.most:g}, median {spread.median:g}"


def _groups(groups: list[list[str]]) -> list[str]:
    return [" = ".join(group[:4]) + (" …" if len(group) > 4 else "") for group in groups]


def _lines(lines: list[str]) -> list[dict[str, str]]:
    """Each on a line of its own in the table, but not too many."""
    kept = lines[:SHOWN]
    if len(lines) > SHOWN:
        kept.append(f"and {len(lines) - SHOWN} more (--json FILE has all)")
    return [{"line": line} for line in kept]
