"""`suffuse train clip`."""

from __future__ import annotations

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
    run_stage,
)
from suffuse.cli.train_pixel import chosen_preset


def clip(
    output: Output,
    preset: Annotated[
        str, typer.Option(help="emoji, vit-b-32, rn50 …: `suffuse train --list` shows all.")
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
    """CLIP: pictures and words in one space.

    OUTPUT holds checkpoints, samples, curves, and at the end model/, for `search --clip`.
    """
    from suffuse.training.clip_presets import CLIPS
    from suffuse.training.clip_stage import clip_stage

    chosen = chosen_preset(CLIPS, preset, config, planning=(steps, batch, workers, data))
    asked: dict[str, object] = {"stage": "clip", "preset": preset, "data": data, "stream": stream}
    asked["init"] = init and str(init)
    run_stage(
        lambda told, device: clip_stage(
            chosen, output, seed, data=data, streaming=stream, init=init, note=told
        ),
        Asked(chosen, asked, output, seed, resume),
    )
