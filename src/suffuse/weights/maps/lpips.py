"""VGG-16 as torchvision (and timm) name it, and LPIPS around it.

torchvision numbers convolutions, ReLUs and poolings through; LPIPS cuts that sequence into five
slices and keeps the numbers.
"""

from __future__ import annotations

from suffuse.weights.mapping import KeyMap, Op, Row

_NUMBERS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
_PLACES = [(i, j, n) for i, row in enumerate(_NUMBERS) for j, n in enumerate(row)]

# One weight a channel, kept as a 1 x 1 convolution (1, C, 1, 1).
_CHANNELS = Op("channels", lambda w: w.flatten(), lambda w: w[None, :, None, None])

VGG = KeyMap(
    tuple(Row(f"blocks.{i}.{j}.*", f"features.{n}.*") for i, j, n in _PLACES),
    ignore=("classifier.*", "pre_logits.*", "head.*"),  # what follows the convolutions
)

LINEAR = KeyMap((Row("{i}", "lin{i}.model.1.weight", _CHANNELS),))

LPIPS = KeyMap(
    (
        *(Row(f"stack.blocks.{i}.{j}.*", f"net.slice{i + 1}.{n}.*") for i, j, n in _PLACES),
        Row("weights.{i}", "lin{i}.model.1.weight", _CHANNELS),
    ),
    ignore=("scaling_layer.*",),  # constants
)
