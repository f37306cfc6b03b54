"""The noisy classifier's stage: which class, whatever the noise (2105.05233, section 4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from suffuse.data.stream import Stream
from suffuse.diffusion.prediction import diffuse
from suffuse.errors import SuffuseError
from suffuse.networks.blocks import channels_last
from suffuse.networks.classifier import ClassifierConfig, classifier
from suffuse.networks.families import silence_branches
from suffuse.systems.classifier import LEVELS, NoisyClassifier, load_classifier
from suffuse.systems.generate import to_picture
from suffuse.training.autoencoder import contact_sheet
from suffuse.training.noising import Levels, Noising
from suffuse.training.pixel import AT_ONCE, HELD_OUT, SHOWN, Batch, labelled, row, streams
from suffuse.training.pixel_presets import ClassifierPreset
from suffuse.training.stages import take
from suffuse.weights.parts import Info
from suffuse.weights.pixel import PixelModel
from suffuse.weights.save import save_pixel


class ClassifierStage:
    """Cross-entropy of noised pictures, at levels uniform in t."""

    def __init__(
        self,
        judge: NoisyClassifier,
        stream: Stream,
        *,
        held_out: Stream | None = None,
        export: Callable[[NoisyClassifier, Path], None] = lambda judge, folder: None,
    ):
        """held_out: pictures that tell which checkpoint is best"""
        self.judge, self.stream, self.held_out = judge, stream, held_out
        self.levels = Levels(Noising(), judge.trained_on)
        self.nets = nn.ModuleDict({"classifier": judge.net})
        self._export = export

    def batch(self, step: int, size: int, seed: int, rows: slice | None = None) -> Batch:
        return self._labelled(self.stream, step, size, seed, rows)

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        x0 = batch.images.to(memory_format=torch.channels_last)

        def objective(t: Tensor, eps: Tensor) -> Tensor:
            return self.judge.loss(x0, batch.labels, t, eps)

        return self.levels.of(objective, x0, generator).mean(), {}

    @torch.no_grad()
    def score(self, nets: nn.ModuleDict) -> float | None:
        """The share of what is held out that is read wrong, at levels spread evenly over it; None
        if nothing is. 1 - score is the accuracy."""
        if self.held_out is None:
            return None
        judge = self._of(nets)
        images, labels = self._labelled(self.held_out, 0, HELD_OUT, 0)
        steps, noise = self.levels.evenly(images)
        device, wrong = next(judge.net.parameters()).device, []
        for rows in torch.arange(len(images)).split(AT_ONCE):
            x0, t, eps = (each[rows].to(device) for each in (images, steps, noise))
            wrong.append(judge.logits(x0, t, eps).argmax(1).cpu() != labels[rows])
        return torch.cat(wrong).float().mean().item()

    @torch.no_grad()
    def sample(self, nets: nn.ModuleDict, path: Path) -> None:
        """A row for each of some pictures, the noise growing to the right; what is read wrong is
        red."""
        judge = self._of(nets)
        device = next(judge.net.parameters()).device
        images, labels = self._labelled(self.held_out or self.stream, 0, SHOWN, 0)
        eps = self.levels.evenly(images)[1]
        x0, labels, eps = (each.to(device) for each in (images, labels, eps))
        columns = []
        for k in range(LEVELS):
            t = torch.full((SHOWN,), int((k + 0.5) / LEVELS * self.levels.T), device=device)
            wrong = (judge.logits(x0, t, eps).argmax(1) != labels).cpu().numpy()
            noisy = diffuse(x0, eps, judge.trained_on.at(t))
            column = row([to_picture(x) for x in noisy])  # (SHOWN, H, W, 3)
            column[wrong, ..., 1:] = 0
            columns.append(column)
        contact_sheet(list(np.stack(columns, 1)), path)  # SHOWN of (LEVELS, H, W, 3)

    def export(self, nets: nn.ModuleDict, folder: Path) -> None:
        self._export(self._of(nets), folder)

    def _of(self, nets: nn.ModuleDict) -> NoisyClassifier:
        net: Any = nets["classifier"].eval()
        return NoisyClassifier(replace(self.judge.model, unet=net))

    def _labelled(
        self, stream: Stream, step: int, size: int, seed: int, rows: slice | None = None
    ) -> Batch:
        found = stream.batch(step, size, seed, rows)
        return labelled(found, self.judge.classes, self.judge.config.net.in_channels)


def classifier_stage(
    preset: ClassifierPreset, seed: int, *, data: str | None = None, init: Path | None = None
) -> ClassifierStage:
    """The classifier of `preset`, ready to train.

    data: a folder with a folder for each class; None for the preset's own
    init: a classifier that training goes on from

    Raises SuffuseError.
    """
    stream, held_out, classes = streams(preset, data, False, True)
    if len(classes) < 2:
        raise SuffuseError(f"a classifier needs two classes at least, not {len(classes)}")
    torch.manual_seed(seed)
    side = preset.preprocess.size
    config = ClassifierConfig(
        replace(preset.net, out_channels=len(classes), classes=0),
        preset.pool,
        side,
        preset.net.heads[-1],
    )
    net = classifier(config)
    silence_branches(net)
    channels_last(net)
    if init is not None:
        take(net, load_classifier(init).net, init, "classifier")
    judge = NoisyClassifier(
        PixelModel(
            net,
            config,
            Info("training run", "made in memory"),
            scheduler=dict(preset.scheduler),
            size=(side, side),
            classes=classes,
        )
    )

    def export(judge: NoisyClassifier, folder: Path) -> None:
        save_pixel(judge.model, folder)
        if data is not None:
            preset.preprocess.save(folder)

    return ClassifierStage(judge, stream, held_out=held_out, export=export)
