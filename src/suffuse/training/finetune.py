"""Fine-tuning a loaded model on one's own pictures, from a preset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from suffuse.data.preprocess import Preprocess
from suffuse.data.sources import open_stream
from suffuse.errors import SuffuseError
from suffuse.networks.blocks import channels_last
from suffuse.training.checkpoint import check_output
from suffuse.training.distributed import Team
from suffuse.training.finetune_presets import FINETUNES, FinetunePreset
from suffuse.training.finetune_stage import ClassPictures, FinetuneStage
from suffuse.training.loop import train
from suffuse.training.memory import recompute
from suffuse.training.presets import preset as named
from suffuse.training.prior import keep_class_pictures
from suffuse.training.tuning import Adapters, Method, Whole, Word
from suffuse.weights.load import open_parts
from suffuse.weights.parts import Hints, Parts

Note = Callable[[str], None]
SAMPLES = 4  # pictures of a sample


@dataclass(frozen=True)
class Subject:
    """What the pictures show, where their captions do not say.

    prompt: the caption of every picture: "a photo of sks dog"
    word, init: textual inversion's new word, and an old one that it begins as: "<rex>", "dog"
    of_class: what the subject is one of, for prior preservation: "a photo of a dog"
    class_folder: where pictures of the class lie or are to be kept; None for the run's folder
    """

    prompt: str | None = None
    word: str | None = None
    init: str | None = None
    of_class: str | None = None
    class_folder: Path | None = None


def finetune(
    preset: FinetunePreset | str,
    model: str | Path | None,
    data: str,
    output: Path,
    *,
    seed: int = 0,
    resume: bool = False,
    subject: Subject | None = None,
    note: Note = print,
) -> Path:
    """Trains in `output` what a preset (or the one of that name) says; the folder that comes out.

    The rest is as for `finetune_stage`. Raises SuffuseError.
    """
    if isinstance(preset, str):
        preset = named(FINETUNES, preset)
    check_output(output, resume)
    team = Team()
    how: Any = {"subject": subject, "device": team.device, "note": note}
    with team.first():
        stage = finetune_stage(preset, model, data, output, seed, **how)
    train(stage, preset.plan, output, seed=seed, resume=resume, note=note, team=team)
    return output / "model"


def finetune_stage(
    preset: FinetunePreset,
    model: str | Path | None,
    data: str,
    output: Path,
    seed: int,
    *,
    subject: Subject | None = None,
    hints: Hints | None = None,
    streaming: bool = False,
    device: torch.device | str = "cpu",
    note: Note = lambda _: None,
) -> FinetuneStage:
    """The `model`, ready to learn from the pictures in `data` what `preset` lets it.

    model: as for `open_parts`; None for the default one
    data: pictures that `open_stream` finds
    device: where the parts of the model that are not trained are to be

    Pictures of the class, where the preset wants them, are kept in `output`/class unless the
    subject names a folder. Raises SuffuseError.
    """
    subject = subject or Subject()
    _check(preset, subject)
    torch.manual_seed(seed)
    parts = open_parts(model, device=device, hints=hints)
    channels_last(parts.unet)
    preprocess = preset.preprocess or own_size(parts)
    stream = open_stream(data, preprocess, streaming=streaming)
    others = _class_pictures(preset, subject, parts, output / "class", preprocess, note)
    captions = _captions(preset, subject)
    prompts = list(captions[:SAMPLES])
    if not captions:
        # A stream that is read in order would have to be wound back.
        other = open_stream(data, preprocess, streaming=True) if streaming else stream
        prompts = [caption for caption in other.batch(0, SAMPLES, seed).captions if caption]
        if not prompts:
            raise SuffuseError(f"the pictures of '{data}' have no captions: name a prompt for all")
    return FinetuneStage(
        _method(preset, subject, parts),
        stream,
        captions=captions,
        others=others,
        dropout=preset.dropout,
        noising=preset.noising,
        prompts=prompts,
        preprocess=preprocess,
    )


def _check(preset: FinetunePreset, subject: Subject) -> None:
    if preset.method == "word" and not (subject.word and subject.init):
        raise SuffuseError(
            "textual inversion needs a new word and an old one to begin with: '<rex>' and 'dog'"
        )
    if preset.method != "word" and subject.word:
        raise SuffuseError("only textual inversion learns a word: put it into the prompt instead")
    if preset.prior is not None and not (subject.prompt and subject.of_class):
        raise SuffuseError(
            "prior preservation needs a prompt for the subject and one for its class: "
            "'a photo of sks dog' and 'a photo of a dog'"
        )
    if preset.prior is None and subject.of_class:
        raise SuffuseError("this preset has no prior preservation: leave the class's prompt out")


def _method(preset: FinetunePreset, subject: Subject, parts: Parts) -> Method:
    method: Method
    if preset.method == "full":
        return Whole(parts, preset.text_trained)
    if preset.method == "word":
        assert subject.word and subject.init
        method = Word(parts, subject.word, subject.init, preset.tokens)
    else:
        method = Adapters(parts, preset.lora, preset.text_lora)
    if preset.plan.recompute:  # the loop sees to networks that are trained
        recompute(parts.unet)
        recompute(parts.text)
    return method


def _captions(preset: FinetunePreset, subject: Subject) -> tuple[str, ...]:
    """What takes the place of the pictures' own captions."""
    if subject.prompt is not None:
        return (subject.prompt,)
    if subject.word is not None:
        return tuple(template.format(subject.word) for template in preset.templates)
    return ()


def own_size(parts: Parts) -> Preprocess:
    height, width = (side * parts.autoencoder.config.factor for side in parts.latent_size)
    return Preprocess(size=min(height, width))


def _class_pictures(
    preset: FinetunePreset,
    subject: Subject,
    parts: Parts,
    folder: Path,
    preprocess: Preprocess,
    note: Note,
) -> ClassPictures | None:
    if preset.prior is None:
        return None
    assert subject.of_class is not None  # `_check` saw to it
    folder = subject.class_folder or folder
    keep_class_pictures(parts, subject.of_class, preset.prior.count, folder, note)
    stream: Any = open_stream(str(folder), preprocess)
    return ClassPictures(stream, subject.of_class, preset.prior.weight)
