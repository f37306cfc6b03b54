"""`suffuse train ar-prior`."""

from __future__ import annotations

from typing import Annotated

import typer

from suffuse.cli.console import Debug
from suffuse.cli.train import (
    Asked,
    Batch,
    Config,
    Output,
    Preset,
    Resume,
    Seed,
    Steps,
    Workers,
    run_stage,
)
from suffuse.cli.train_pixel import chosen_preset


def ar_prior(
    output: Output,
    clip: Annotated[
        str | None,
        typer.Option(help="Folder, file or Hub name of the CLIP to predict for; else the bundled."),
    ] = None,
    preset: Preset = "emoji",
    config: Config = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Folder of pictures, .tar, .parquet or Hub name; or a .safetensors of embeddings "
            "(z) and captions' tokens (ids). Default: the preset's."
        ),
    ] = None,
    steps: Steps = None,
    batch: Batch = None,
    seed: Seed = 0,
    resume: Resume = False,
    workers: Workers = None,
    debug: Debug = False,
) -> None:
    """unCLIP's autoregressive prior: captions to CLIP's embeddings of pictures.

    OUTPUT holds checkpoints, curves, and at the end model/.
    """
    from suffuse.training.ar_prior import AR_PRIORS, ar_prior_stage

    # Whatever the data are, they are looked at once and kept in memory.
    chosen = chosen_preset(AR_PRIORS, preset, config, planning=(steps, batch, workers, None))
    asked = {"stage": "ar-prior", "preset": preset, "data": data, "clip": clip}
    run_stage(
        lambda told, device: ar_prior_stage(
            chosen, output, seed, clip=clip, data=data, device=device, note=told
        ),
        Asked(chosen, asked, output, seed, resume),
    )
