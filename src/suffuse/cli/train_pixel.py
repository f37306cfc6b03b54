"""`suffuse train ddpm`, `adm`, `classifier`, `score-sde` and `sr3`: models of pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
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

Labels = Annotated[
    bool | None,
    typer.Option(
        "--labels/--no-labels",
        help="Learn classes: the preset's, or with --data its folders. Default: the preset's.",
    ),
]


def ddpm(
    output: Output,
    preset: Annotated[
        str, typer.Option(help="digits, emoji, cifar10 …: `suffuse train --list` shows all.")
    ] = "digits",
    config: Config = None,
    data: Data = None,
    stream: Streamed = False,
    labels: Labels = None,
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
    from suffuse.training import presets
    from suffuse.training.pixel_presets import DDPMS

    chosen = with_config(presets.preset(DDPMS, preset), config)
    plan = planned(chosen.plan, steps, batch, workers, data)
    words = {"stage": "ddpm", "preset": preset}
    asked = Asked(replace(chosen, plan=plan), words, output, seed, resume)
    _run(asked, data, stream, labels, init)


def adm(
    output: Output,
    preset: Annotated[
        str, typer.Option(help="digits, emoji, imagenet64 …: `suffuse train --list` shows all.")
    ] = "digits",
    config: Config = None,
    data: Data = None,
    stream: Streamed = False,
    labels: Labels = None,
    steps: Steps = None,
    batch: Batch = None,
    seed: Seed = 0,
    resume: Resume = False,
    workers: Workers = None,
    init: Init = None,
    debug: Debug = False,
) -> None:
    """ADM: DDPM with the improved U-Net and a learned variance.

    OUTPUT holds checkpoints, samples, curves, and at the end model/, for `generate --model`.
    """
    from suffuse.training import presets
    from suffuse.training.adm_presets import ADMS

    chosen = with_config(presets.preset(ADMS, preset), config)
    plan = planned(chosen.plan, steps, batch, workers, data)
    words = {"stage": "adm", "preset": preset}
    asked = Asked(replace(chosen, plan=plan), words, output, seed, resume)
    _run(asked, data, stream, labels, init)


def _run(
    asked: Asked, data: str | None, stream: bool, labels: bool | None, init: Path | None
) -> None:
    from suffuse.training import pixel

    words = {"data": data, "stream": stream, "labels": labels, "init": init and str(init)}
    run_stage(
        lambda told, device: pixel.ddpm_stage(
            asked.preset, asked.seed, data=data, streaming=stream, labels=labels, init=init
        ),
        replace(asked, words={**asked.words, **words}),
    )


def classifier(
    output: Output,
    preset: Annotated[
        str, typer.Option(help="digits, emoji, imagenet64 …: `suffuse train --list` shows all.")
    ] = "digits",
    config: Config = None,
    data: Annotated[
        str | None,
        typer.Option(help="A folder with one of pictures for each class. Default: the preset's."),
    ] = None,
    steps: Steps = None,
    batch: Batch = None,
    seed: Seed = 0,
    resume: Resume = False,
    workers: Workers = None,
    init: Init = None,
    debug: Debug = False,
) -> None:
    """A classifier of noisy pictures, to guide a model of the same preset's scheduler.

    OUTPUT holds checkpoints, samples, curves, and at the end model/, for `generate --classifier`.
    """
    from suffuse.training import presets
    from suffuse.training.adm_presets import CLASSIFIERS
    from suffuse.training.classifier import classifier_stage

    chosen = with_config(presets.preset(CLASSIFIERS, preset), config)
    chosen = replace(chosen, plan=planned(chosen.plan, steps, batch, workers, data))
    words = {"stage": "classifier", "preset": preset, "data": data, "init": init and str(init)}
    run_stage(
        lambda told, device: classifier_stage(chosen, seed, data=data, init=init),
        Asked(chosen, words, output, seed, resume),
    )


def score_sde(
    output: Output,
    preset: Annotated[
        str, typer.Option(help="digits, emoji, cifar10 …: `suffuse train --list` shows all.")
    ] = "digits",
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
    """Score SDE: pixels from noise in continuous time, with exact likelihoods.

    OUTPUT holds checkpoints, samples, curves, and at the end model/, for `generate --model`.
    """
    from suffuse.training import presets
    from suffuse.training.score_sde import score_sde_stage
    from suffuse.training.score_sde_presets import SCORE_SDES

    chosen = with_config(presets.preset(SCORE_SDES, preset), config)
    plan = planned(chosen.plan, steps, batch, workers, data)
    words = {"stage": "score-sde", "preset": preset, "data": data, "stream": stream}
    run_stage(
        lambda told, device: score_sde_stage(chosen, seed, data=data, streaming=stream, init=init),
        Asked(
            replace(chosen, plan=plan), {**words, "init": init and str(init)}, output, seed, resume
        ),
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
    words = {"stage": "sr3", "preset": preset, "data": data, "stream": stream}
    run_stage(
        lambda told, device: sr3_stage(chosen, seed, data=data, streaming=stream, init=init),
        Asked(
            replace(chosen, plan=plan), {**words, "init": init and str(init)}, output, seed, resume
        ),
    )
