"""unCLIP's stages, put together from their presets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from suffuse.data.folder import FolderStream
from suffuse.data.preprocess import Preprocess
from suffuse.diffusion.noise import Noise
from suffuse.diffusion.samplers import ddim
from suffuse.errors import SuffuseError
from suffuse.networks.autoencoder import Autoencoder
from suffuse.networks.blocks import channels_last
from suffuse.networks.clip import ClipText
from suffuse.networks.prior import DiffusionPrior, PriorConfig
from suffuse.networks.unclip import ImageProjection
from suffuse.systems.encoders import TextEncoder
from suffuse.systems.latent import LatentDiffusion
from suffuse.systems.unclip_decoder import Decoder, LatentDecoder
from suffuse.training.autoencoder import contact_sheet
from suffuse.training.checkpoint import checkpoints
from suffuse.training.distributed import Team
from suffuse.training.embedded import (
    AT_ONCE,
    Batch,
    EmbeddedSet,
    embed,
    kept,
    of_folder,
    scenes,
)
from suffuse.training.encode import Note, fingerprint
from suffuse.training.finetune import own_size
from suffuse.training.loop import train
from suffuse.training.stages import opened
from suffuse.training.tuning import Adapters
from suffuse.training.unclip import DecoderStage, PriorStage
from suffuse.training.unclip_presets import DecoderPreset, PixelDecoderPreset, PriorPreset
from suffuse.weights.clip import ClipParts, open_clip_parts
from suffuse.weights.load import bundled, open_parts
from suffuse.weights.parts import Place
from suffuse.weights.scheduler import from_config
from suffuse.weights.unclip_own import (
    OwnDecoder,
    OwnPrior,
    PriorUse,
    index_of,
    named,
    named_in,
    open_own_prior,
    save_unclip,
)

SHOWN = 8  # pictures of a sample
FILE = "embeddings.safetensors"


def prior_stage(
    preset: PriorPreset,
    output: Path,
    seed: int,
    *,
    clip: str | None = None,
    data: str | None = None,
    device: torch.device | str = "cpu",
    note: Note = lambda _: None,
) -> PriorStage:
    """The prior of `preset`, ready to train.

    clip: in whose space it works, as for `open_clip_parts`; None for the bundled one
    data: captioned pictures that `open_stream` finds; None for the emoji world

    Embeddings are kept in `output` for a resumed run. Raises SuffuseError.
    """
    torch.manual_seed(seed)
    parts = open_clip_parts(clip, device=device)
    text = TextEncoder(parts.tokenizer, parts.model.text)
    pictures = _folder(data, preset.preprocess)
    source = _Source(preset, pictures, seed)
    told = f"{source.identity} {parts.info.hash()} {parts.tokenizer.backend.to_str()}"
    make = lambda: source.embedded(parts, text, note)  # noqa: E731
    found = kept(make, output / FILE, told, note)
    config = PriorConfig(
        embedding=parts.width,
        width=preset.width,
        layers=preset.layers,
        heads=preset.heads,
        tokens=parts.tokenizer.window,
        states=parts.model.text.config.width,
        text_scale=parts.width**0.5,
    )
    prior = DiffusionPrior(config)
    z = found.z.float()
    prior.mean.copy_(z.mean(0))
    prior.std.copy_(z.std(0))
    sampling = from_config(dict(preset.scheduler))
    held_out = None
    if pictures is None:
        held_out = _mixed(embed(parts, text, scenes(preset.world, preset.held_out, seed, "test")))

    def export(prior: DiffusionPrior, folder: Path) -> None:
        use = PriorUse(preset.steps, preset.guidance, preset.draws)
        made = OwnPrior(prior, dict(preset.scheduler), use)
        save_unclip(folder, named(clip, parts.info), made)

    return PriorStage(
        prior,
        parts.model,
        text,
        found,
        sampling.schedule,
        dropout=preset.dropout,
        held_out=held_out,
        export=export,
    )


def decoder_stage(
    preset: DecoderPreset,
    output: Path,
    seed: int,
    *,
    clip: str | None = None,
    model: str | None = None,
    prior: Path | None = None,
    data: str | None = None,
    device: torch.device | str = "cpu",
    note: Note = lambda _: None,
) -> DecoderStage:
    """The decoder of `preset`, ready to train beside the text-to-image `model`.

    clip, model: as for `open_clip_parts` and `open_parts`; None for the bundled ones
    prior: a folder of `train prior`, which the decoder's folder gets a copy of
    data: captioned pictures that `open_stream` finds; None for the emoji world

    Embeddings and latents are kept in `output` for a resumed run. Raises SuffuseError.
    """
    torch.manual_seed(seed)
    seeing = open_clip_parts(clip, device=device)
    parts = open_parts(model or bundled(), device=device)  # whatever SUFFUSE_MODEL says
    channels_last(parts.unet)
    text = TextEncoder(parts.tokenizer, parts.text)
    carried = None if prior is None else carried_prior(prior, seeing, Place(device))
    taught = preset.lesson is not None and data is None
    if taught and preset.tokens != parts.tokenizer.window:
        raise SuffuseError(
            f"the lesson is for as many tokens as captions have here, {parts.tokenizer.window}, "
            f"not {preset.tokens}"
        )
    pictures = _folder(data, preset.preprocess or own_size(parts))
    source = _Source(preset, pictures, seed)
    codec = parts.autoencoder
    words = text.tokenizer.backend.to_str()
    of = fingerprint(codec, source.identity, str(seeing.info.hash()), words)
    make = lambda: source.embedded(seeing, text, note, codec)  # noqa: E731
    found = kept(make, output / FILE, of, note)
    projection = ImageProjection(
        seeing.width,
        parts.unet_config.context,
        parts.unet_config.embedding,
        preset.tokens,
        scale=seeing.width**0.5,
        hidden=preset.hidden,
    )
    held_out = None
    if pictures is None:
        held_out = _mixed(
            embed(seeing, text, scenes(preset.world, preset.held_out, seed, "test"), codec)
        )
    if taught and not checkpoints(output):
        assert preset.lesson is not None
        lesson = LessonStage(projection, found, parts.text)
        note("teaching the projection what the text encoder says of pictures")
        place = output / "lesson" / of[:12]  # of this CLIP, this model and these pictures
        begun, alone = bool(checkpoints(place)), Team(alone=True)
        train(lesson, preset.lesson, place, seed=seed, resume=begun, team=alone)
        if lesson.explained:  # else it was over before
            note(f"{lesson.explained:.0%} of it is learnt")
        torch.manual_seed(seed)  # adapters begin alike, whether there was still a lesson to give

    def export(nets: nn.ModuleDict, folder: Path) -> None:
        given: Any = nets
        base = named(model, parts.info)
        made = OwnDecoder(
            given["projection"],
            given["unet"],
            base,
            parts.unet_config,
            preset.steps,
            preset.guidance,
        )
        save_unclip(folder, named(clip, seeing.info), carried, made)

    def sample(projection: ImageProjection, path: Path) -> None:
        shown = found if held_out is None else held_out
        z, latents = shown.z[:SHOWN].float(), shown.latents[:SHOWN].float()
        given = (latents - parts.latent_shift) * parts.latent_scale
        sheet(LatentDecoder(LatentDiffusion(parts), projection), given, z, preset, path)

    return DecoderStage(
        Adapters(parts, preset.lora),
        projection,
        found,
        parts.sampling.schedule,
        kind=parts.sampling.kind,
        without=preset.without,
        silent=preset.silent,
        noising=preset.noising,
        held_out=held_out,
        sample=sample,
        export=export,
    )


class LessonStage:
    """An embedding's tokens are to be what the text encoder says of the picture.

    Of the plainest caption, that is, and as many as its window has. The U-Net has learnt to draw by
    these: a projection that begins there draws at once.
    """

    def __init__(self, projection: ImageProjection, data: EmbeddedSet, tower: ClipText):
        self.projection, self.data = projection, data
        self.explained = 0.0  # of what differs between pictures
        self.nets = nn.ModuleDict({"projection": projection})
        device = tower.token.weight.device
        with torch.no_grad():
            said = [
                tower(ids.long().to(device), pool=False).last.half().cpu()
                for ids in data.ids[:, 0].split(AT_ONCE)  # the plainest
            ]
        self.said = torch.cat(said)  # (N, window, width)

    def batch(
        self, step: int, size: int, seed: int, rows: slice | None = None
    ) -> tuple[Tensor, Tensor]:
        found = np.random.default_rng((seed, step)).integers(len(self.said), size=size)
        found = found[rows or slice(None)]
        return self.data.z[found].float(), self.said[found].float()

    def loss(
        self, batch: tuple[Tensor, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        z, said = batch
        error = (self.projection(z)[0] - said).square().mean()
        self.explained = 1 - (error / said.var(0).mean()).item()
        return error, {"explained": self.explained}

    def sample(self, nets: nn.ModuleDict, path: Path) -> None:
        """Tokens are nothing to look at."""

    def export(self, nets: nn.ModuleDict, folder: Path) -> None:
        """The decoder goes on with the projection itself."""


class _Source:
    """Where the pictures of a stage come from, and what two runs with the same have in common."""

    def __init__(
        self, preset: PriorPreset | DecoderPreset, pictures: FolderStream | None, seed: int
    ):
        self.preset, self.pictures, self.seed = preset, pictures, seed
        if pictures is None:
            self.identity = repr((seed, preset.scenes, preset.world))
        else:
            self.identity = f"{seed} {pictures.identity}"

    def embedded(
        self, clip: ClipParts, text: TextEncoder, note: Note, codec: Autoencoder | None = None
    ) -> EmbeddedSet:
        if self.pictures is None:
            note(f"looking at {self.preset.scenes} scenes")
            drawn = scenes(self.preset.world, self.preset.scenes, self.seed)
            return embed(clip, text, drawn, codec)
        note(f"looking at {len(self.pictures)} pictures")
        made = embed(clip, text, of_folder(self.pictures, self.seed), codec)
        if notice := self.pictures.broken.notice():
            note(notice)
        return made


def carried_prior(prior: Path, clip: ClipParts, place: Place) -> OwnPrior:
    """The prior that goes into a decoder's folder. Raises SuffuseError for another CLIP's."""
    named_in(index_of(prior), "clip", prior).check(clip.info, prior, "CLIP")
    return open_own_prior(prior, place)


def _folder(data: str | None, preprocess: Preprocess) -> FolderStream | None:
    found = opened(data, preprocess, False)
    assert found is None or isinstance(found, FolderStream)  # not streamed
    return found


def _mixed(found: EmbeddedSet) -> Batch:
    """All of it, with one caption each, in turn."""
    rows = torch.arange(len(found.z))
    ids = found.ids[rows, rows % found.ids.shape[1]].long()[:, None]
    return Batch(found.z.float(), ids, found.latents.float())


@torch.no_grad()
def sheet(
    decoder: Decoder,
    given: Tensor,
    z: Tensor,
    preset: DecoderPreset | PixelDecoderPreset,
    path: Path,
) -> None:
    """Pictures, of whose x0 are `given`, above what the decoder draws of their embeddings z."""
    denoiser, grid = decoder.denoiser(z, [""] * len(z), preset.guidance), decoder.grid(preset.steps)
    noise = Noise(range(len(z)), given.shape[1:], grid.device or "cpu")
    *_, last = ddim(denoiser, noise() * grid.start, grid, noise)
    both = (given.to(last.x.device), last.x)
    rows = [[np.asarray(decoder.picture(x[None])) for x in each] for each in both]
    contact_sheet([np.stack(row) for row in rows], path)
