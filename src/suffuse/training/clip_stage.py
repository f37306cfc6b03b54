"""CLIP's stage, put together from its preset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from suffuse.data.sources import open_stream
from suffuse.errors import SuffuseError
from suffuse.networks.blocks import channels_last
from suffuse.networks.clip import Clip, ClipText
from suffuse.networks.clip_resnet import ClipResNet, ClipResNetConfig
from suffuse.networks.clip_vision import ClipVision, ClipVisionConfig
from suffuse.systems.encoders import TextEncoder
from suffuse.text.openai import openai_clip_tokenizer
from suffuse.training.clip import Captioned, ClipStage, Rivals
from suffuse.training.clip_presets import ClipPreset
from suffuse.training.encode import Note, Pictures, learned_tokenizer
from suffuse.training.stages import opened, take
from suffuse.weights.clip import ClipParts, open_clip_parts, save_clip
from suffuse.weights.load import bundled, open_parts
from suffuse.weights.parts import Info

LOOKED_AT = 16  # pictures, to see whether they have captions


def clip_stage(
    preset: ClipPreset,
    output: Path,
    seed: int,
    *,
    data: str | None = None,
    streaming: bool = False,
    init: Path | None = None,
    note: Note = lambda _: None,
) -> ClipStage:
    """The CLIP of `preset`, ready to train.

    data: captioned pictures that `open_stream` finds; None for the preset's own
    init: a CLIP of the same shape that training goes on from

    A tokenizer that is learned is kept in `output`. Raises SuffuseError.
    """
    if preset.plan.accumulate > 1:
        raise SuffuseError(
            "a contrastive loss needs its whole batch at once: accumulate must be 1; more processes"
            " share a batch, and recompute saves memory"
        )
    if data is None and preset.data is None:
        raise SuffuseError("this preset has no pictures of its own: name a folder with --data")
    torch.manual_seed(seed)
    pictures = opened(data, preset.preprocess, streaming)
    if data is not None:
        _check_captions(data, preset, streaming, seed)
    if init is None:
        text = _text(preset, pictures, output, seed, note)
        net = Clip(text.tower, tower(preset.image))
    else:
        text, net = _begun(preset, init)
    if preset.words == "bundled" and (pictures is None or init is not None):
        for part in (net.text.token, net.text.position, *net.text.blocks[: preset.frozen]):
            part.requires_grad_(False)
    channels_last(net.image)
    if pictures is None:
        chosen: Captioned | Rivals = Rivals(preset.world, text, cells_across(preset.image))
    else:
        chosen = Captioned(pictures, text)

    def export(net: Clip, folder: Path) -> None:
        info = Info("training run", "made in memory")
        save_clip(ClipParts(net, text.tokenizer, preset.input, info), folder)

    return ClipStage(
        net, text, chosen, mean=preset.input.mean, spread=preset.input.spread, export=export
    )


def tower(config: ClipVisionConfig | ClipResNetConfig) -> ClipVision | ClipResNet:
    return ClipVision(config) if isinstance(config, ClipVisionConfig) else ClipResNet(config)


def cells_across(config: ClipVisionConfig | ClipResNetConfig) -> int:
    return round(config.cells**0.5)


def _check_captions(data: str, preset: ClipPreset, streaming: bool, seed: int) -> None:
    # A stream that is read in order would have to be wound back: it is another one.
    first = open_stream(data, preset.preprocess, streaming=streaming)
    if not any(first.batch(0, LOOKED_AT, seed).captions):
        raise SuffuseError(
            f"none of the first pictures of '{data}' has a caption: these stand in metadata.jsonl, "
            "or in text files beside the pictures"
        )


def _begun(preset: ClipPreset, init: Path) -> tuple[TextEncoder, Clip]:
    """A trained CLIP in the shapes of the preset, with the tokenizer that its words are of.

    Raises SuffuseError where it has others.
    """
    given = open_clip_parts(init)
    said, seen = given.model.text.config, given.model.image.config
    own, image = replace(preset.text, eos=said.eos, activation=said.activation), preset.image
    if isinstance(image, ClipVisionConfig) and isinstance(seen, ClipVisionConfig):
        image = replace(image, activation=seen.activation)
    text = TextEncoder(given.tokenizer, ClipText(own))
    net = Clip(text.tower, tower(image))
    take(net, given.model, init, "CLIP")
    return text, net


def _text(
    preset: ClipPreset, pictures: Pictures | None, output: Path, seed: int, note: Note
) -> TextEncoder:
    """Text tower and tokenizer, both as the preset's `words` says."""
    if preset.words == "openai":
        return TextEncoder(openai_clip_tokenizer(pad=0), ClipText(preset.text))
    if preset.words == "learned" or pictures is not None:  # other pictures have other words
        tokenizer = learned_tokenizer(preset, pictures, output, seed, note)
        return TextEncoder(tokenizer, ClipText(replace(preset.text, eos=tokenizer.eos)))
    parts, made = open_parts(bundled()), ClipText(preset.text)
    width = made.config.width
    with torch.no_grad():  # the sentence begins as the state that the lessons were asked at
        assert made.projection is not None
        made.projection.weight.copy_(torch.eye(made.projection.out_features, width))
    missing = made.load_state_dict(parts.text.state_dict(), strict=False).missing_keys
    assert missing == ["projection.weight"], missing
    return TextEncoder(parts.tokenizer, made)
