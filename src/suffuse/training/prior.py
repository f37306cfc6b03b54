"""Prior preservation: what a model knows of a class, kept by its own pictures (2208.12242).

DreamBooth teaches a model a subject from a few pictures, and the model tends to forget that there
are others of its kind. So it also learns from pictures of the kind that it drew itself before.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from suffuse.errors import SuffuseError
from suffuse.systems.latent import LatentDiffusion
from suffuse.systems.metadata import Origin, describe, read_parameters, write_png
from suffuse.systems.request import Request
from suffuse.weights.parts import Parts

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def keep_class_pictures(
    parts: Parts,
    prompt: str,
    count: int,
    folder: Path,
    note: Callable[[str], None] = lambda _: None,
) -> None:
    """Sees to it that `folder` holds `count` pictures of the class: what is missing is drawn.

    Pictures that lie there already are kept, one's own photographs too; picture i has seed i, so
    that a run which was stopped goes on where it was. Raises SuffuseError when `folder` holds
    pictures that were drawn for another prompt.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES)
    for path in found[:1]:
        _check(path, prompt)
    missing = count - len(found)
    if missing <= 0:
        return
    note(f"drawing {missing} pictures of {prompt!r} into {folder}")
    system, origin = LatentDiffusion(parts), Origin(name=parts.info.name)
    taken = {path.stem for path in found}
    seeds = (seed for seed in range(count + len(found)) if f"{seed:05d}" not in taken)
    for done, seed in zip(range(missing), seeds):
        request = system.resolve(Request(prompt, seed=seed))
        (picture,) = system.generate(request)
        write_png(picture, folder / f"{seed:05d}.png", describe(request, origin))
        if (done + 1) % 20 == 0:
            note(f"drew {done + 1} of {missing}")


def _check(path: Path, prompt: str) -> None:
    try:
        drawn = read_parameters(path).parameters.prompt
    except SuffuseError:
        return  # a photograph
    if drawn != prompt:
        raise SuffuseError(
            f"{path.parent} holds pictures of {drawn!r}, not of {prompt!r}: name another folder"
        )
