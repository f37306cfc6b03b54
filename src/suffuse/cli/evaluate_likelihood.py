"""`suffuse evaluate likelihood`: bits per dimension of pictures under a DDPM."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from suffuse.cli.console import Bar, Debug, note
from suffuse.cli.report import AsJson, Batch, Device, Overwrite, at_least_one, check_new, tell
from suffuse.errors import SuffuseError

DIGITS = "digits"


def likelihood(
    model: Annotated[str, typer.Option("--model", "-m", help="Folder or Hub name of a DDPM.")],
    data: Annotated[str, typer.Option(help="A folder of pictures, or digits: those held out.")],
    n: Annotated[int | None, typer.Option("--n", "-n", help="Pictures; else all.")] = None,
    respacing: Annotated[
        str | None,
        typer.Option(help="Steps of a shorter chain, such as 100: faster, and a looser bound."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Picture i is noised by seed + i.")] = 0,
    batch: Batch = 32,
    device: Device = "auto",
    as_json: AsJson = None,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Measure how many bits a pixel's value takes: the variational bound, term by term."""
    at_least_one(n=n, batch=batch)
    if seed < 0:
        raise SuffuseError(f"seed must be 0 or more, not {seed}")
    check_new(as_json, overwrite)

    import suffuse
    from suffuse.data.preprocess import Preprocess
    from suffuse.evaluation.likelihood import evaluate_likelihood, held_out_digits
    from suffuse.evaluation.pictures import folder_squares, open_folder
    from suffuse.systems.ddpm import DDPM

    pictures = None if data == DIGITS else open_folder(Path(data), n)
    system = suffuse.load(model, device=device, dtype="float32")
    if not isinstance(system, DDPM):
        raise SuffuseError(f"{model}: likelihoods are of DDPMs; this is a text-to-image model")
    if pictures is None:
        given = held_out_digits(n)
    else:
        trained = None if system.info.path is None else Preprocess.load(system.info.path)
        given = folder_squares(pictures, trained, (system.model.size or (None,))[0])
    with Bar() as bar:
        found = evaluate_likelihood(
            system,
            given,
            batch,
            respacing,
            seed,
            lambda done, total: bar.step("bound", done, total),
        )
    if broken := given.broken.notice():
        note(broken)
    head = {"model": system.info.name, "data": data, "pictures": found.count, "steps": found.steps}
    parts = ("prior", "transitions", "decoder")
    values = {**head, "bits_per_dim": found.total, "standard_error": found.error}
    values |= {name: getattr(found, name) for name in parts}
    shown = {**head, "bits/dim": f"{found.total:.3f} ± {found.error:.3f}"}
    shown |= {name: f"{getattr(found, name):.4g}" for name in parts}
    tell(shown, values, as_json)
