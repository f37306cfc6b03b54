"""`suffuse evaluate probe` and `robustness`: how good a CLIP's embeddings are to build on."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from suffuse.cli.classes import (
    Asked,
    ClipSource,
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
from suffuse.cli.console import Bar, Debug
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
    from suffuse.evaluation.labelled import Labelled


def probe(
    folder: Folder = None,
    test: Annotated[
        Path | None,
        typer.Option(help="Pictures to ask for, of the same classes; else half of FOLDER."),
    ] = None,
    shots: Annotated[
        list[int] | None,
        typer.Option(help="Pictures of a class to learn from; repeated. 1, 2, 4, 8, 16."),
    ] = None,
    c: Annotated[
        float | None, typer.Option("--c", help="Inverse strength of the penalty; 31.6 unless said.")
    ] = None,
    n: Annotated[
        int,
        typer.Option("--n", "-n", help="At most so many scenes, or pictures of a class, each."),
    ] = 2000,
    objects: Objects = None,
    seed: Seed = 0,
    clip: ClipSource = None,
    batch: Batch = 32,
    device: Device = "auto",
    as_json: AsJson = None,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Learn the classes by logistic regression, from all pictures and from few of each class.

    Of emoji scenes, learned from training's backgrounds and asked on held-out ones.
    """
    at_least_one(n=n, batch=batch, shots=min(shots or [1]))
    not_negative(seed)
    if c is not None and not c > 0:
        raise SuffuseError(f"c must be above 0, not {c:g}")
    if folder is None and test is not None:
        raise SuffuseError("--test goes with a folder to learn from: name that too")
    asked = Asked(folder, None, None, None, None, objects)
    asked.check()
    check_new(as_json, overwrite)

    from suffuse.evaluation import probe as probes
    from suffuse.systems.clip import load_clip

    probes.require_scikit()
    learned, held = _sets(asked, test, n, seed)
    with Bar() as bar:
        model = load_clip(clip, device=device)
        train = look(model, learned, batch, bar, "looking at pictures to learn from")
        other = look(model, held, batch, bar, "looking at pictures to ask for")
        found = probes.probe(
            train,
            other,
            tuple(sorted(set(shots or probes.SHOTS))),
            c or probes.STRENGTH,
            seed=seed,
            progress=lambda done, total: bar.step("learning", done, total),
        )
    head = {**asked.head(model), "classes": len(next(iter(learned.names.values())))}
    head |= {"learned from": found.trained, "asked for": found.tested}
    curve = {
        f"{few.shots} of each class": f"{share(few.accuracy)} ± {share(few.deviation)}"
        for few in found.curve
    }
    tell({**head, **curve, "all": share(found.full)}, {**head, **asdict(found)}, as_json)


def _sets(asked: Asked, test: Path | None, n: int, seed: int) -> tuple[Labelled, Labelled]:
    """What is learned from, and what is asked for. Raises SuffuseError."""
    if asked.folder is None:
        return asked.open(n, seed, "train"), asked.open(n, seed, "test")
    learned = asked.open(n)
    if test is None:
        return learned.halves(seed)
    held = replace(asked, folder=test).open(n)
    if held.names != learned.names:
        raise SuffuseError(f"'{test}' has not the classes of '{asked.folder}': name them alike")
    return learned, held


def robustness(
    folder: Folder = None,
    name: Names = None,
    names: NamesFile = None,
    template: Templates = None,
    lang: Lang = None,
    severity: Annotated[
        list[int] | None, typer.Option(help="1 to 5; may be repeated. 1, 3 and 5 unless said.")
    ] = None,
    n: Annotated[
        int, typer.Option("--n", "-n", help="At most so many scenes, or pictures of a class.")
    ] = 500,
    objects: Objects = None,
    seed: Seed = 0,
    clip: ClipSource = None,
    batch: Batch = 32,
    device: Device = "auto",
    as_json: AsJson = None,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Name pictures as zero-shot does, under noise, blur, sketch, texture and compression."""
    at_least_one(n=n, batch=batch)
    not_negative(seed)
    levels = sorted(set(severity or (1, 3, 5)))
    if not set(levels) <= {1, 2, 3, 4, 5}:
        raise SuffuseError(f"severities are 1 to 5, not {', '.join(map(str, levels))}")
    asked = Asked(folder, name, names, template, lang, objects)
    asked.check()
    check_new(as_json, overwrite)

    from suffuse.evaluation.robustness import CORRUPTIONS, corrupt
    from suffuse.evaluation.zero_shot import score
    from suffuse.systems.clip import load_clip

    given = asked.open(n, seed)
    if given.labels[0] < 0:
        raise SuffuseError(f"'{folder}' needs a folder for each class, to know what is right")
    rows: list[dict[str, Any]] = []
    with Bar() as bar:
        model = load_clip(clip, device=device)
        classes = asked.classes(model, given)

        def measure(pictures: Labelled, kind: str, level: int) -> None:
            seen = look(model, pictures, batch, bar, f"{kind} {level or ''}".strip())
            found = {
                language: score(seen, classes[language], given.names[language]).top1
                for language in asked.languages
            }
            rows.append({"corruption": kind, "severity": level, **found})

        measure(given, "clean", 0)
        for kind in CORRUPTIONS:
            for level in levels:

                def change(image: Any, i: int, kind: str = kind, level: int = level) -> Any:
                    return corrupt(image, kind, level, seed, i)

                measure(given.changed(change), kind, level)
    head = {**asked.head(model), "pictures": len(given) - len(given.broken.found)}
    if as_json != STDOUT:
        from suffuse.cli.table import show

        show(head)
        _show(rows, levels, asked.languages)
    dump({**head, "severities": levels, "scores": rows}, as_json)


def _show(rows: list[dict[str, Any]], levels: list[int], languages: tuple[str, ...]) -> None:
    """A line for each corruption, a column for each severity and language."""
    from suffuse.cli.table import grid

    places = [(level, language) for level in levels for language in languages]
    lines = []
    for kind in dict.fromkeys(row["corruption"] for row in rows):
        found = {row["severity"]: row for row in rows if row["corruption"] == kind}
        cells = [share(found.get(level, found.get(0, {}))[language]) for level, language in places]
        lines.append((kind, *cells))
    grid(("", *(f"{level} {language}" for level, language in places)), lines)
