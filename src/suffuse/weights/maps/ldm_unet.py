"""CompVis' U-Net in single-file checkpoints, below `model.diffusion_model.`."""

from __future__ import annotations

from suffuse.networks.families import SDConfig
from suffuse.weights.mapping import KeyMap, Row
from suffuse.weights.maps.blocks import TRANSFORMER
from suffuse.weights.maps.openai_unet import numbered


def ldm_unet(c: SDConfig) -> KeyMap:
    """The rows for a U-Net of this shape."""
    rows = numbered(c.blocks, [depth > 0 for depth in c.depth], lambda level, up: TRANSFORMER)
    return KeyMap((*rows, Row("head.norm.*", "out.0.*"), Row("head.conv.*", "out.2.*")))
