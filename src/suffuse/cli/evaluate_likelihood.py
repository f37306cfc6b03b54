"""`suffuse evaluate likelihood`: bits per dimension of pictures under a DDPM or a score SDE."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from suffuse.cli.console import Bar, Debug, note
from suffuse.cli.report import (
    AsJson,
    Batch,
    Device,
    Overwrite,
    at_least_one,
    check_new,
    not_negative,
    tell,
)
from suffuse.errors import SuffuseError

if TYPE_CHECKING:
    from suffuse.evaluation.pictures import Given
    from suffuse.systems.ddpm import DDPM
    from suffuse.systems.score_sde import ScoreSDE

DIGITS = "digits"
Numbers = dict[str, Any]


def likelihood(
    model: Annotated[str, typer.Option("--model", "-m", help="A DDPM or score SDE.")],
    data: Annotated[str, typer.Option(help="A folder of pictures, or digits: those held out.")],
    n: Annotated[int | None, typer.Option("--n", "-n", help="Pictures; else all.")] = None,
    respacing: Annotated[
        str | None,
        typer.Option(help="Steps of a shorter chain, such as 100: faster, and a looser bound."),
    ] = None,
    probes: Annotated[
        int | None,
        typer.Option(
            help="Of a score SDE: random vectors a picture; more vary less. 1 unless said."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Picture i is noised by seed + i.")] = 0,
    batch: Batch = 32,
    device: Device = "auto",
    as_json: AsJson = None,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Measure how many bits a pixel's value takes.

    Of a DDPM the variational bound, term by term; of a score SDE the exact likelihood.
    """
    at_least_one(n=n, batch=batch, probes=probes)
    not_negative(seed)
    check_new(as_json, overwrite)

    import suffuse
    from suffuse.data.preprocess import Preprocess
    from suffuse.evaluation.likelihood import held_out_digits
    from suffuse.evaluation.pictures import folder_squares, open_folder
    from suffuse.systems.ddpm import DDPM
    from suffuse.systems.latent import LatentDiffusion
    from suffuse.systems.score_sde import ScoreSDE

    pictures = None if data == DIGITS else open_folder(Path(data), n)
    system = suffuse.load(model, device=device, dtype="float32")
    if not isinstance(system, DDPM | ScoreSDE):
        kind = "a text-to-image model" if isinstance(system, LatentDiffusion) else "an upscaler"
        raise SuffuseError(f"{model}: likelihoods are of DDPMs and score SDEs; this is {kind}")
    if pictures is None:
        given = held_out_digits(n)
    else:
        trained = None if system.info.path is None else Preprocess.load(system.info.path)
        given = folder_squares(pictures, trained, (system.model.size or (None,))[0])
    with Bar() as bar:
        if isinstance(system, DDPM):
            if probes is not None:
                raise SuffuseError("a DDPM's bound has no probes: leave them out")
            values, shown = _bound(system, given, batch, respacing, seed, bar)
        else:
            if respacing is not None:
                raise SuffuseError("a score SDE has no chain to respace: leave respacing out")
            values, shown = _exact(system, given, batch, probes or 1, seed, bar)
    if broken := given.broken.notice():
        note(broken)
    head = {"model": system.info.name, "data": data}
    tell({**head, **shown}, {**head, **values}, as_json)


def _bound(
    system: DDPM, given: Given, batch: int, respacing: str | None, seed: int, bar: Bar
) -> tuple[Numbers, Numbers]:
    """The numbers, and the same for people."""
    from suffuse.evaluation.likelihood import evaluate_likelihood

    tick = partial(bar.step, "bound")
    found = evaluate_likelihood(system, given, batch, respacing, seed, tick)
    head = {"pictures": found.count, "steps": found.steps}
    parts = {name: getattr(found, name) for name in ("prior", "transitions", "decoder")}
    values = {**head, "bits_per_dim": found.total, "standard_error": found.error, **parts}
    shown = {**head, "bits/dim": f"{found.total:.3f} ± {found.error:.3f}"}
    return values, shown | {name: f"{value:.4g}" for name, value in parts.items()}


def _exact(
    system: ScoreSDE, given: Given, batch: int, probes: int, seed: int, bar: Bar
) -> tuple[Numbers, Numbers]:
    from suffuse.evaluation.likelihood import evaluate_exact_likelihood

    tick = partial(bar.step, "likelihood")
    found = evaluate_exact_likelihood(system, given, batch, probes, seed, tick)
    head = {"pictures": found.count, "probes": probes}
    values = {**head, "bits_per_dim": found.total, "standard_error": found.error}
    return values, {**head, "bits/dim": f"{found.total:.3f} ± {found.error:.3f}"}
