"""`suffuse train ddpm` and `sr3`: models of pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from suffuse.cli.console import Debug
from suffuse.cli.train import (
    Asked,
    Batch,
    Config,
    Data,
    Init,
    Output,
    Resume,
    Seed,
    Steps,
    Streamed,
    Workers,
    planned,
    run_stage,
    with_config,
)


def ddpm(
    output: Output,
    preset: Annotated[
        str, typer.Option(help="digits, emoji, cifar10 …: `suffuse train --list` shows all.")
    ] = "digits",
    config: Config = None,
    data: Data = None,
    stream: Streamed = False,
    labels: Annotated[
        bool | None,
        typer.Option(
            "--labels/--no-labels",
            help="Learn classes: the preset's, or with --data its folders. Default: the preset's.",
        ),
    ] = None,
    steps: Steps = None,
    batch: Batch = None,
    seed: Seed = 0,
    resume: Resume = False,
    workers: Workers = None,
    init: Init = None,
    debug: Debug = False,
) -> None:
    """DDPM: pixels from noise, with or without classes.

    OUTPUT holds checkpoints, samples, curves, and at the end model/, for `generate --model`.
    """
    from suffuse.training import pixel, presets
    from suffuse.training.pixel_presets import DDPMS

    chosen = with_config(presets.preset(DDPMS, preset), config)
    plan = planned(chosen.plan, steps, batch, workers, data)
    asked: dict[str, str | bool | None] = {
        "stage": "ddpm",
        "preset": preset,
        "data": data,
        "stream": stream,
        "labels": labels,
        "init": None if init is None else str(init),
    }
    run_stage(
        lambda told, device: pixel.ddpm_stage(
            chosen, seed, data=data, streaming=stream, labels=labels, init=init
        ),
        Asked(replace(chosen, plan=plan), asked, output, seed, resume),
    )


def sr3(
    output: Output,
    preset: Annotated[
        str,
        typer.Option(help="emoji, ffhq-16-128 …: `suffuse train --list` shows all."),
    ] = "emoji",
    config: Config = None,
    data: Data = None,
    stream: Streamed = False,
    steps: Steps = None,
    batch: Batch = None,
    seed: Seed = 0,
    resume: Resume = False,
    workers: Workers = None,
    init: Init = None,
    debug: Debug = False,
) -> None:
    """SR3: small pictures to large ones. Pairs are made of the pictures it is given.

    OUTPUT holds checkpoints, samples, curves, and at the end model/, for `upscale --model`.
    """
    from suffuse.training import presets
    from suffuse.training.sr3 import sr3_stage
    from suffuse.training.sr3_presets import SR3S

    chosen = with_config(presets.preset(SR3S, preset), config)
    plan = planned(chosen.plan, steps, batch, workers, data)
    asked: dict[str, str | bool | None] = {
        "stage": "sr3",
        "preset": preset,
        "data": data,
        "stream": stream,
        "init": None if init is None else str(init),
    }
    run_stage(
        lambda told, device: sr3_stage(chosen, seed, data=data, streaming=stream, init=init),
        Asked(replace(chosen, plan=plan), asked, output, seed, resume),
    )
