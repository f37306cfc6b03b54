"""`suffuse inspect`: how a picture was made, or what is in a checkpoint."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from suffuse.cli.console import Debug, say
from suffuse.cli.table import show
from suffuse.errors import SuffuseError


def inspect(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A picture, a checkpoint file or a model folder.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Say how a picture was made, or what a checkpoint holds.

    Neither pixels nor weights are loaded.
    """
    if not file.exists():
        raise SuffuseError(f"there is no file or folder '{file}'")
    found = _picture(file) if _is_picture(file) else _checkpoint(file)
    if as_json:
        say(json.dumps(found, ensure_ascii=False, indent=2, default=str))
    else:
        show(found)


def _is_picture(file: Path) -> bool:
    """By its first bytes, not by its name."""
    if file.is_dir():
        return False
    try:
        with file.open("rb") as opened:
            head = opened.read(12)
    except OSError as error:
        raise SuffuseError(f"cannot read '{file}': {error.strerror}") from None
    if head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        return True
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def _picture(file: Path) -> dict[str, Any]:
    from suffuse.systems.metadata import read_parameters

    found = read_parameters(file)
    shown = found.parameters
    answer: dict[str, Any] = {"prompt": shown.prompt, "negative": shown.negative}
    answer["parameters"] = dict(shown.fields)
    for name, made in (("request", found.request), ("manipulation", found.manipulation)):
        if made is None:
            continue
        answer[name] = dict(made)
        answer["model"] = None if found.origin is None else dataclasses.asdict(found.origin)
        answer["version"] = found.version
    return answer


def _checkpoint(file: Path) -> dict[str, Any]:
    from suffuse.weights.inspect import describe

    return dataclasses.asdict(describe(str(file)))
