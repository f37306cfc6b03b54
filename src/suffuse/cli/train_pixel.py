"""`suffuse train ddpm`, `adm`, `classifier`, `score-sde` and `sr3`: models of pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

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

Given = dict[str, Any]  # what a stage is made with, by name
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
    from suffuse.training.pixel import ddpm_stage
    from suffuse.training.pixel_presets import DDPMS

    chosen = chosen_preset(DDPMS, preset, config, planning=(steps, batch, workers, data))
    given: Given = {"data": data, "streaming": stream, "labels": labels, "init": init}
    make = partial(ddpm_stage, chosen, seed, **given)
    run_made(make, chosen, ("ddpm", preset), given, output, seed, resume)


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
    from suffuse.training.adm_presets import ADMS
    from suffuse.training.pixel import ddpm_stage

    chosen = chosen_preset(ADMS, preset, config, planning=(steps, batch, workers, data))
    given: Given = {"data": data, "streaming": stream, "labels": labels, "init": init}
    make = partial(ddpm_stage, chosen, seed, **given)
    run_made(make, chosen, ("adm", preset), given, output, seed, resume)


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
    from suffuse.training.adm_presets import CLASSIFIERS
    from suffuse.training.classifier import classifier_stage

    chosen = chosen_preset(CLASSIFIERS, preset, config, planning=(steps, batch, workers, data))
    given: Given = {"data": data, "init": init}
    make = partial(classifier_stage, chosen, seed, **given)
    run_made(make, chosen, ("classifier", preset), given, output, seed, resume)


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
    from suffuse.training.score_sde import score_sde_stage
    from suffuse.training.score_sde_presets import SCORE_SDES

    chosen = chosen_preset(SCORE_SDES, preset, config, planning=(steps, batch, workers, data))
    given: Given = {"data": data, "streaming": stream, "init": init}
    make = partial(score_sde_stage, chosen, seed, **given)
    run_made(make, chosen, ("score-sde", preset), given, output, seed, resume)


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
    from suffuse.training.sr3 import sr3_stage
    from suffuse.training.sr3_presets import SR3S

    chosen = chosen_preset(SR3S, preset, config, planning=(steps, batch, workers, data))
    given: Given = {"data": data, "streaming": stream, "init": init}
    make = partial(sr3_stage, chosen, seed, **given)
    run_made(make, chosen, ("sr3", preset), given, output, seed, resume)


def chosen_preset(table: Any, name: str, config: Path | None, planning: tuple[Any, ...]) -> Any:
    """The preset of that name with what a file and the options change of it.

    planning: steps, batch, workers and data, as `planned` takes them
    """
    from suffuse.training import presets

    chosen = with_config(presets.preset(table, name), config)
    return replace(chosen, plan=planned(chosen.plan, *planning))


def run_made(
    make: Callable[[], Any],
    chosen: Any,
    named: tuple[str, str],
    given: Given,
    output: Path,
    seed: int,
    resume: bool,
) -> None:
    """Trains the stage that `make` makes.

    named: the stage and its preset;  given: what `make` was given besides, for the run's record
    """
    words = {"stage": named[0], "preset": named[1], **given}
    if "streaming" in words:
        words["stream"] = words.pop("streaming")
    words["init"] = words["init"] and str(words["init"])
    run_stage(lambda told, device: make(), Asked(chosen, words, output, seed, resume))
