"""`suffuse train finetune`: a model of yours learns from pictures of yours."""

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


def finetune(
    output: Output,
    data: Annotated[str, typer.Option(help="Folder of pictures, .tar, .parquet or Hub name.")],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Folder, file or Hub name; else the bundled."),
    ] = None,
    preset: Annotated[
        str, typer.Option(help="lora, full, dreambooth …: `suffuse train --list` shows all.")
    ] = "lora",
    config: Config = None,
    prompt: Annotated[
        str | None, typer.Option(help="What every picture shows, in place of captions.")
    ] = None,
    word: Annotated[
        str | None, typer.Option(help="textual-inversion: the new word, '<rex>'.")
    ] = None,
    init: Annotated[
        str | None, typer.Option(help="textual-inversion: an old word that it begins as, 'dog'.")
    ] = None,
    class_prompt: Annotated[
        str | None, typer.Option(help="dreambooth: what the subject is one of, 'a photo of a dog'.")
    ] = None,
    class_folder: Annotated[
        Path | None, typer.Option(help="dreambooth: where pictures of the class are kept.")
    ] = None,
    stream: Streamed = False,
    steps: Steps = None,
    batch: Batch = None,
    seed: Seed = 0,
    resume: Resume = False,
    workers: Workers = None,
    debug: Debug = False,
) -> None:
    """Teach a model from your pictures: LoRA, a new word, DreamBooth, or all of it.

    OUTPUT holds checkpoints, samples, curves, and at the end model/, for `generate --lora`,
    `--embedding` or `--model`.
    """
    from suffuse.training.finetune import Subject, finetune_stage
    from suffuse.training.finetune_presets import FINETUNES
    from suffuse.training.presets import preset as named

    chosen = with_config(named(FINETUNES, preset), config)
    plan = planned(chosen.plan, steps, batch, workers, data)
    asked = {"stage": "finetune", "preset": preset, "data": data, "stream": stream}
    asked |= {"model": model, "prompt": prompt, "word": word, "init": init}
    asked |= {"class_prompt": class_prompt}
    asked |= {"class_folder": None if class_folder is None else str(class_folder)}
    run_stage(
        lambda told, device: finetune_stage(
            chosen,
            model,
            data,
            output,
            seed,
            subject=Subject(prompt, word, init, class_prompt, class_folder),
            streaming=stream,
            device=device,
            note=told,
        ),
        Asked(replace(chosen, plan=plan), asked, output, seed, resume),
    )
