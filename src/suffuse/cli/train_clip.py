"""`suffuse train clip`, `prior` and `decoder`: CLIP, and unCLIP on top of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from suffuse.cli.console import Debug
from suffuse.cli.train import (
    Asked,
    Batch,
    Config,
    Data,
    Init,
    Output,
    Preset,
    Resume,
    Seed,
    Steps,
    Streamed,
    Workers,
    run_stage,
)
from suffuse.cli.train_pixel import chosen_preset

if TYPE_CHECKING:
    import torch

    from suffuse.training.loop import Stage


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


ClipName = Annotated[
    str | None, typer.Option("--clip", help="A CLIP's folder, file or Hub name. Default: bundled.")
]


def prior(
    output: Output,
    preset: Preset = "emoji",
    config: Config = None,
    clip: ClipName = None,
    data: Data = None,
    steps: Steps = None,
    batch: Batch = None,
    seed: Seed = 0,
    resume: Resume = False,
    debug: Debug = False,
) -> None:
    """unCLIP's diffusion prior: from captions to a CLIP's embeddings of pictures.

    OUTPUT holds checkpoints, curves, and at the end model/, for `train decoder --prior`.
    """
    from suffuse.training.unclip_presets import PRIORS
    from suffuse.training.unclip_stages import prior_stage

    chosen = chosen_preset(PRIORS, preset, config, planning=(steps, batch, 0, data))
    asked = {"stage": "prior", "preset": preset, "clip": clip, "data": data}
    run_stage(
        lambda told, device: prior_stage(
            chosen, output, seed, clip=clip, data=data, device=device, note=told
        ),
        Asked(chosen, asked, output, seed, resume),
    )


def decoder(
    output: Output,
    preset: Preset = "emoji",
    config: Config = None,
    clip: ClipName = None,
    model: Annotated[
        str | None,
        typer.Option(help="The text-to-image model that becomes a decoder. Default: bundled."),
    ] = None,
    prior: Annotated[
        Path | None, typer.Option(help="A folder of `train prior` that goes into the same model.")
    ] = None,
    upsampler: Annotated[
        list[Path] | None,
        typer.Option(help="A folder of `train sr3` that enlarges what pixels it draws; many."),
    ] = None,
    data: Data = None,
    stream: Streamed = False,
    steps: Steps = None,
    batch: Batch = None,
    seed: Seed = 0,
    resume: Resume = False,
    workers: Workers = None,
    debug: Debug = False,
) -> None:
    """unCLIP's decoder: a text-to-image model that also draws what a CLIP saw, or one of pixels.

    OUTPUT holds checkpoints, samples, curves, and at the end model/, for `vary`, `blend` and
    `edit`; with a prior also for `generate --model`.
    """
    from suffuse.training.unclip_presets import DECODERS, PixelDecoderPreset

    pixels, behind = isinstance(DECODERS.get(preset), PixelDecoderPreset), upsampler or []
    others = {"--upsampler": behind, "--stream": stream, "--workers": workers}
    _refuse(preset, {"--model": model} if pixels else others)
    planning = (steps, batch, workers if pixels else 0, data)
    chosen = chosen_preset(DECODERS, preset, config, planning=planning)
    asked: dict[str, Any] = {"clip": clip, "prior": prior, "data": data}
    asked |= {"upsamplers": behind, "streaming": stream} if pixels else {"model": model}

    def make(told: Callable[[str], None], device: torch.device) -> Stage:
        if pixels:
            from suffuse.training.unclip_pixel_stage import pixel_decoder_stage

            return pixel_decoder_stage(chosen, seed, **asked, device=device)
        from suffuse.training.unclip_stages import decoder_stage

        return decoder_stage(chosen, output, seed, **asked, device=device, note=told)

    words = {"stage": "decoder", "preset": preset, **asked, "prior": prior and str(prior)}
    words["upsamplers"] = [str(folder) for folder in behind]
    words["stream"] = bool(words.pop("streaming", False))
    run_stage(make, Asked(chosen, words, output, seed, resume))


def _refuse(preset: str, given: dict[str, object]) -> None:
    """Raises SuffuseError for an option that is for decoders of the other kind."""
    from suffuse.errors import SuffuseError

    for name, value in given.items():
        if value:
            raise SuffuseError(
                f"{name} is not for the preset {preset}: decoders of latents begin as a --model, "
                "those of pixels take --upsampler, --stream and --workers"
            )
