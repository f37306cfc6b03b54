"""`suffuse search`: the pictures of a folder by words or by another picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from suffuse.cli.console import Bar, Debug, Stopped, note, warn
from suffuse.cli.report import (
    STDOUT,
    AsJson,
    Batch,
    Device,
    Overwrite,
    at_least_one,
    check_new,
    check_sheet,
    dump,
)
from suffuse.errors import SuffuseError

if TYPE_CHECKING:
    from torch import Tensor

    from suffuse.systems.clip import Clip
    from suffuse.systems.search import Hit, Index, Update


def search(
    folder: Annotated[
        Path,
        typer.Argument(help="Where the pictures are.", metavar="FOLDER", show_default=False),
    ],
    text: Annotated[
        str | None, typer.Argument(help="What they show.", metavar="TEXT", show_default=False)
    ] = None,
    image: Annotated[Path | None, typer.Option(help="Or a picture that they are like.")] = None,
    top: Annotated[int, typer.Option(help="At most so many.")] = 10,
    clip: Annotated[
        str | None, typer.Option(help="Folder, file or Hub name of a CLIP; else the bundled.")
    ] = None,
    index: Annotated[
        Path | None, typer.Option(help="The index' file; else in FOLDER, hidden.")
    ] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build the index anew.")] = False,
    sheet: Annotated[Path | None, typer.Option(help="Draw what was found, a .png.")] = None,
    batch: Batch = 32,
    device: Device = "auto",
    as_json: AsJson = None,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Find pictures by what they show.

    Pictures are embedded once and kept in an index; later only new and changed ones are.
    For example: suffuse search photos "a cat in a forest"
    """
    if text is None and image is None:
        raise SuffuseError('say what to look for: suffuse search FOLDER "a cat", or --image FILE')
    if text is not None and image is not None:
        raise SuffuseError("look for a text or for an --image, not for both at once")
    if text is not None and not text.strip():
        raise SuffuseError("the text is empty: say in a few words what to look for")
    at_least_one(top=top, batch=batch)
    check_sheet(sheet)
    for path in (as_json, sheet):
        check_new(path, overwrite)

    from suffuse.systems.clip import load_clip
    from suffuse.systems.search import Index, check_folder, require_faiss

    check_folder(folder)
    require_faiss()
    with Bar() as bar:
        model = load_clip(clip, device=device)
        question = _question(model, text, image)
        there = Index.open(folder, model, index, rebuild)
        try:
            update = there.update(batch, lambda done, total: bar.step("looking", done, total))
        except KeyboardInterrupt:
            kept = f"{len(there)} pictures are in '{there.path}'"
            raise Stopped(f"stopped; {kept}, and the same command goes on from there") from None
    _tell_update(there, update)
    hits = there.search(question, top)
    if sheet is not None:
        _draw(there, hits, sheet)
    asked = {"text": text} if image is None else {"image": str(image)}
    _tell(there, asked, update, hits, as_json)


def _question(clip: Clip, text: str | None, image: Path | None) -> Tensor:
    """The embedding (D,) of what is asked for."""
    if image is None:
        return clip.texts([text or ""], note=warn)[0]
    from suffuse.systems.request import open_upright

    return clip.images([open_upright(image, "image")])[0]


def _tell_update(index: Index, update: Update) -> None:
    parts = {"new": update.new, "changed": update.changed, "deleted": update.deleted}
    if any(parts.values()):
        told = ", ".join(f"{count} {name}" for name, count in parts.items() if count)
        note(f"indexed {told}: {len(index)} in {index.path}")
    if broken := update.broken.notice():
        note(broken)
    if not len(index):
        raise SuffuseError(f"none of the pictures in '{index.folder}' can be read")


def _tell(
    index: Index, asked: dict[str, Any], update: Update, hits: list[Hit], as_json: str | None
) -> None:
    found = [{"path": str(index.folder / hit.name), "score": round(hit.score, 6)} for hit in hits]
    counts = {"pictures": len(index), "new": update.new, "changed": update.changed}
    counts |= {"deleted": update.deleted}
    head = {**asked, "folder": str(index.folder), "model": index.clip.info.name, **counts}
    if as_json != STDOUT:
        from suffuse.cli.table import grid

        grid(("score", "picture"), [(f"{hit['score']:.3f}", hit["path"]) for hit in found])
    dump({**head, "broken": update.broken.found, "found": found}, as_json)


def _draw(index: Index, hits: list[Hit], path: Path) -> None:
    from suffuse.data.decode import BrokenPicture, open_file
    from suffuse.data.sheet import write_sheet

    cells = []
    for hit in hits:
        try:
            picture = open_file(index.folder / hit.name)
        except BrokenPicture:  # changed since it was indexed, a moment ago
            continue
        cells.append((picture, f"{hit.score:.3f} {hit.name}"))
    try:
        write_sheet(cells, path)
    except OSError as error:
        raise SuffuseError(f"cannot write '{path}': {error.strerror or error}") from None
    note(f"wrote {path}")
