"""DDPM's and ADM's stage: pictures, with a share of their labels left out where they have any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from suffuse.data.classes import DIGITS, DigitsStream, EmojiClasses, class_folders
from suffuse.data.stream import Examples, Stream
from suffuse.errors import SuffuseError
from suffuse.networks.blocks import channels_last
from suffuse.networks.families import initialise
from suffuse.networks.pixel import DDPMConfig, adm, ddpm
from suffuse.systems.adm import open_adm_model
from suffuse.systems.ddpm import DDPM, UNWEIGHTED
from suffuse.systems.encoders import NO_CLASS, ClassEncoder
from suffuse.systems.generate import pixels
from suffuse.systems.request import Request
from suffuse.training.autoencoder import contact_sheet
from suffuse.training.noising import Levels, Noising
from suffuse.training.pixel_presets import ClassifierPreset, PixelPreset
from suffuse.training.score_sde_presets import ScorePreset
from suffuse.training.stages import opened, take
from suffuse.weights.parts import Defaults, Info
from suffuse.weights.pixel import PixelModel
from suffuse.weights.save import save_pixel
from suffuse.weights.scheduler import from_config
from suffuse.weights.unet2d import open_unet2d

AT_ONCE = 64  # held-out pictures that go through the network together
HELD_OUT = 256  # pictures that tell which checkpoint is best
SHOWN = 8  # classes of a sheet, and pictures of each
SIDE = 32  # pixels that a picture of a sheet has at least


class Batch(NamedTuple):
    """Pixels (B, C, H, W) float32 in [-1, 1], and classes (B,) int64; -1 is no class."""

    images: Tensor
    labels: Tensor


class PixelStage:
    """The system's own loss."""

    def __init__(
        self,
        system: DDPM,
        stream: Stream,
        *,
        dropout: float = 0.0,
        noising: Noising | None = None,
        held_out: Stream | None = None,
        export: Callable[[DDPM, Path], None] = lambda system, folder: None,
    ):
        """held_out: pictures that tell which checkpoint is best

        Raises SuffuseError where levels are weighted and the variance is learned.
        """
        if noising is not None and noising.weight != "none" and system.reverse().learned:
            raise SuffuseError(UNWEIGHTED)
        self.system, self.stream, self.dropout = system, stream, dropout
        self.levels = Levels(noising or Noising(), system.sampling.schedule)
        self.nets = nn.ModuleDict({"unet": system.unet, "levels": self.levels})
        self.held_out, self._export = held_out, export

    def batch(self, step: int, size: int, seed: int, rows: slice | None = None) -> Batch:
        found = self._tensors(self.stream.batch(step, size, seed, rows))
        left_out = np.random.default_rng((seed, step)).random(size) < self.dropout
        found.labels[torch.from_numpy(left_out)[rows or slice(None)]] = NO_CLASS
        return found

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        x0 = batch.images.to(memory_format=torch.channels_last)

        def objective(t: Tensor, eps: Tensor) -> Tensor:
            sampling = self.system.sampling
            weight = self.levels.weight(sampling.schedule.at(t), sampling.kind)
            return self.system.loss(x0, batch.labels, t, eps, weight)

        return self.levels.of(objective, x0, generator).mean(), {}

    @torch.no_grad()
    def score(self, nets: nn.ModuleDict) -> float | None:
        """The loss of what is held out, at levels spread evenly over it; None if nothing is."""
        if self.held_out is None:
            return None
        system = self._of(nets)
        images, labels = self._tensors(self.held_out.batch(0, HELD_OUT, 0))
        steps, noise = self.levels.evenly(images)
        losses = [
            system.loss(*(each[rows].to(system.device) for each in (images, labels, steps, noise)))
            for rows in torch.arange(len(images)).split(AT_ONCE)
        ]
        return torch.cat(losses).mean().item()

    def sample(self, nets: nn.ModuleDict, path: Path) -> None:
        """A row for each of the first classes, or as many rows of any."""
        system, rows = self._of(nets), []
        names = system.model.classes[:SHOWN]
        for i in range(len(names) or SHOWN):
            asked = Request(names[i] if names else "", seed=0 if names else i * SHOWN, n=SHOWN)
            rows.append(row(system.generate(asked, together=SHOWN)))
        contact_sheet(rows, path)

    def export(self, nets: nn.ModuleDict, folder: Path) -> None:
        self._export(self._of(nets), folder)

    def _of(self, nets: nn.ModuleDict) -> DDPM:
        unet: Any = nets["unet"].eval()
        return self.system.holding(unet)

    def _tensors(self, found: Examples) -> Batch:
        return labelled(found, self.system.classes, self.system.channels)


def labelled(found: Examples, classes: ClassEncoder, channels: int) -> Batch:
    """Pictures whose captions name their classes; of no class where there are none."""
    labels = classes.ids(found.captions if classes.names else [""] * len(found.captions))
    return Batch(pixels(found.pictures, channels), labels)


def row(pictures: list[Image.Image]) -> np.ndarray:
    """A row of a contact sheet, (n, H, W, 3) uint8; small pictures are enlarged."""
    scale = max(1, SIDE // pictures[0].height)
    stacked = np.stack([np.asarray(p.convert("RGB")) for p in pictures])
    return stacked.repeat(scale, 1).repeat(scale, 2)


def ddpm_stage(
    preset: PixelPreset,
    seed: int,
    *,
    data: str | None = None,
    streaming: bool = False,
    labels: bool | None = None,
    init: Path | None = None,
) -> PixelStage:
    """The DDPM or ADM of `preset`, ready to train.

    data: pictures that `open_stream` finds; None for the preset's own
    labels: whether classes are learned: those of the preset's own data (unless False), or the
        folders in `data` (only if True)
    init: a model whose U-Net training goes on from

    Raises SuffuseError.
    """
    stream, held_out, classes = streams(preset, data, streaming, labels)
    torch.manual_seed(seed)
    learned = from_config(preset.scheduler).learned_var
    config = replace(
        preset.unet,
        out_channels=preset.unet.in_channels * (2 if learned else 1),
        classes=len(classes),
    )
    plain = isinstance(config, DDPMConfig)
    unet = initialise(ddpm(config) if isinstance(config, DDPMConfig) else adm(config))
    channels_last(unet)
    if init is not None:
        given = open_unet2d(init) if plain else open_adm_model(init)
        take(unet, given.unet, init, "U-Net")
    size = (preset.preprocess.size, preset.preprocess.size)
    system = DDPM(
        PixelModel(
            unet,
            config,
            Info("training run", "made in memory"),
            scheduler=dict(preset.scheduler),
            size=size,
            classes=classes,
            defaults=Defaults(steps=preset.steps, guidance=preset.guidance if classes else None),
        )
    )
    system.reverse()  # refuses a schedule that is no chain

    def export(system: DDPM, folder: Path) -> None:
        save_pixel(system.model, folder)
        if data is not None:
            preset.preprocess.save(folder)

    return PixelStage(
        system,
        stream,
        dropout=preset.dropout,
        noising=preset.noising,
        held_out=held_out,
        export=export,
    )


def streams(
    preset: PixelPreset | ClassifierPreset | ScorePreset,
    data: str | None,
    streaming: bool,
    labels: bool | None,
) -> tuple[Stream, Stream | None, tuple[str, ...]]:
    """The pictures, some that are held out, and the names of their classes."""
    if data is not None and labels:
        if streaming:
            raise SuffuseError("classes are the folders of --data, which cannot be streamed")
        folders, classes = class_folders(data, preset.preprocess)
        return folders, None, classes
    pictures = opened(data, preset.preprocess, streaming)
    if pictures is not None:
        return pictures, None, ()
    if preset.data is None:
        raise SuffuseError("this preset has no pictures of its own: name a folder with --data")
    if preset.data == "digits":
        train, test = (DigitsStream(split, preset.preprocess) for split in ("train", "test"))
        train.batch(0, 1, 0)  # refuses where scikit-learn is missing
        return train, test, () if labels is False else DIGITS
    scenes, held = (EmojiClasses(preset.world, preset.preprocess, s) for s in ("train", "test"))
    return scenes, held, () if labels is False else scenes.classes
