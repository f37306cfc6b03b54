"""What the systems of pixels have in common."""

from __future__ import annotations

from typing import Any, Generic, cast

import torch

from suffuse.weights.parts import Info
from suffuse.weights.pixel import Net, PixelModel


class PixelSystem(Generic[Net]):
    """A dataclass around a `model`, whose network begins with a convolution called `stem`."""

    model: PixelModel[Net]

    @property
    def unet(self) -> Net:
        return self.model.unet

    @property
    def info(self) -> Info:
        """Name, format, files and hash of the checkpoint."""
        return self.model.info

    @property
    def device(self) -> torch.device:
        return self._first.device

    @property
    def dtype(self) -> torch.dtype:
        return self._first.dtype

    @property
    def _first(self) -> torch.Tensor:
        return cast("torch.Tensor", cast("Any", self.unet).stem.weight)
