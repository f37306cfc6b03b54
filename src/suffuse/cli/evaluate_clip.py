"""`suffuse evaluate zero-shot` and `retrieval`: what a CLIP knows without being taught."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from suffuse.cli.classes import (
    Asked,
    ClipSource,
    Count,
    Folder,
    Lang,
    Names,
    NamesFile,
    Objects,
    Seed,
    Templates,
    look,
    share,
)
from suffuse.cli.console import Bar, Debug, note, warn
from suffuse.cli.report import (
    STDOUT,
    AsJson,
    Batch,
    Device,
    Overwrite,
    at_least_one,
    check_new,
    dump,
    not_negative,
    tell,
)
from suffuse.errors import SuffuseError

if TYPE_CHECKING:
    from torch import Tensor

    from suffuse.evaluation.labelled import Labelled, Seen
    from suffuse.evaluation.retrieval import RetrievalScores
    from suffuse.systems.clip import Clip

HARDEST = 5  # classes that the table names


def zero_shot(
    folder: Folder = None,
    name: Names = None,
    names: NamesFile = None,
    template: Templates = None,
    lang: Lang = None,
    n: Annotated[
        int, typer.Option("--n", "-n", help="At most so many scenes, or pictures of a class.")
    ] = 1000,
    objects: Objects = None,
    seed: Seed = 0,
    clip: ClipSource = None,
    batch: Batch = 32,
    device: Device = "auto",
    as_json: AsJson = None,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Name pictures by sentences about classes, without training.

    A folder's own folders are the classes; pictures without folders are named by --name.
    """
    at_least_one(n=n, batch=batch)
    not_negative(seed)
    asked = Asked(folder, name, names, template, lang, objects)
    asked.check()
    check_new(as_json, overwrite)

    from suffuse.evaluation.zero_shot import score
    from suffuse.systems.clip import load_clip

    given = asked.open(n, seed)
    with Bar() as bar:
        model = load_clip(clip, device=device)
        classes = asked.classes(model, given)
        seen = look(model, given, batch, bar)
    if given.labels[0] < 0:
        _tell_names(asked, model, given, seen, classes[asked.languages[0]], as_json)
        return
    found = {
        language: score(seen, classes[language], given.names[language])
        for language in asked.languages
    }
    first = found[asked.languages[0]]
    head = {**asked.head(model), "pictures": first.count, "classes": first.classes}
    values = {**head, **{language: asdict(scores) for language, scores in found.items()}}
    shown = dict(head)
    for language, scores in found.items():
        hard = sorted(scores.by_class.items(), key=lambda item: item[1])[:HARDEST]
        told = ", ".join(f"{name} {share(value)}" for name, value in hard if value < 1)
        shown[language] = {
            "right": share(scores.top1),
            "among five": share(scores.top5),
            "hardest": told,
        }
    tell(shown, values, as_json)


def _tell_names(
    asked: Asked, clip: Clip, given: Labelled, seen: Seen, classes: Tensor, as_json: str | None
) -> None:
    """The names of pictures whose class nobody knows."""
    from suffuse.evaluation.zero_shot import answers

    labels, chances = answers(seen, classes, clip.scale)
    called = given.names[asked.languages[0]]
    rows = [
        {"path": given.title(int(i)), "name": called[label], "probability": round(chance, 4)}
        for i, label, chance in zip(seen.which, labels.tolist(), chances.tolist())
    ]
    if as_json != STDOUT:
        from suffuse.cli.table import grid

        told = [(row["path"], row["name"], share(float(row["probability"]))) for row in rows]
        grid(("picture", "name", "probability"), told)
    dump({**asked.head(clip), "pictures": rows}, as_json)


def retrieval(
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="Pictures with captions; else held-out emoji scenes.",
            metavar="FOLDER",
            show_default=False,
        ),
    ] = None,
    lang: Annotated[str, typer.Option(help="en, ko or both, of scenes.")] = "both",
    n: Count = 1000,
    objects: Objects = None,
    seed: Seed = 0,
    clip: ClipSource = None,
    batch: Batch = 32,
    device: Device = "auto",
    as_json: AsJson = None,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Find the text of each picture among those of all, and pictures by texts.

    Equal texts count as the same one.
    """
    at_least_one(n=n, batch=batch)
    not_negative(seed)
    if folder is not None and objects is not None:
        raise SuffuseError("--objects is for emoji scenes: leave it or the folder out")
    check_new(as_json, overwrite)

    from suffuse.evaluation.labelled import see
    from suffuse.evaluation.retrieval import captioned_folder, captioned_scenes, retrieve
    from suffuse.evaluation.templates import check_language
    from suffuse.systems.clip import load_clip

    languages = check_language(lang)
    if folder is None:
        given, texts = captioned_scenes(n, objects, seed, languages)
    else:
        given, texts = captioned_folder(folder, n)
    found: dict[str, RetrievalScores] = {}
    with Bar() as bar:
        model = load_clip(clip, device=device)
        seen = see(model, given, batch, lambda done: bar.step("looking", done, len(given)))
        for kind, lines in texts.items():
            found[kind] = retrieve(model, seen.vectors, [lines[i] for i in seen.which], warn)
    if broken := given.broken.notice():
        note(broken)
    data = "held-out emoji scenes" if folder is None else str(folder)
    head = {"clip": model.info.name, "data": data, "pictures": len(seen.which)}
    shown: dict[str, Any] = dict(head)
    for kind, scores in found.items():
        shown[kind] = {
            "texts": scores.texts,
            "picture to text": share(scores.text_at_1),
            "among five": share(scores.text_at_5),
            "text to picture": share(scores.picture_at_1),
        }
    tell(shown, {**head, **{kind: asdict(scores) for kind, scores in found.items()}}, as_json)
