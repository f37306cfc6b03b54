"""CompVis' U-Net in single-file checkpoints, below `model.diffusion_model.`.

Blocks are numbered through all levels, so the rows depend on the shape: with n residual blocks a
level, level i begins at input block 1 + (n + 1) i and ends with its downsampling.
"""

from __future__ import annotations

from suffuse.networks.families import SDConfig
from suffuse.weights.mapping import KeyMap, Row, nest
from suffuse.weights.maps.blocks import TRANSFORMER

_RES = (
    Row("norm1.*", "in_layers.0.*"),
    Row("conv1.*", "in_layers.2.*"),
    Row("time.*", "emb_layers.1.*"),
    Row("norm2.*", "out_layers.0.*"),
    Row("conv2.*", "out_layers.3.*"),
    Row("skip.*", "skip_connection.*"),
)


def ldm_unet(c: SDConfig) -> KeyMap:
    """The rows for a U-Net of this shape."""
    rows = [
        Row("stem.*", "input_blocks.0.0.*"),
        Row("time.fc1.*", "time_embed.0.*"),
        Row("time.fc2.*", "time_embed.2.*"),
        *nest("mid.res.0", "middle_block.0", _RES),
        *nest("mid.attn.0", "middle_block.1", TRANSFORMER),
        *nest("mid.res.1", "middle_block.2", _RES),
        Row("head.norm.*", "out.0.*"),
        Row("head.conv.*", "out.2.*"),
    ]
    n, last = c.blocks, len(c.channels) - 1
    for i in range(last + 1):
        for j in range(n):
            rows += nest(f"down.{i}.res.{j}", f"input_blocks.{1 + (n + 1) * i + j}.0", _RES)
            rows += nest(f"down.{i}.attn.{j}", f"input_blocks.{1 + (n + 1) * i + j}.1", TRANSFORMER)
        rows.append(Row(f"down.{i}.resample.conv.*", f"input_blocks.{(n + 1) * (i + 1)}.0.op.*"))
        for j in range(n + 1):
            rows += nest(f"up.{i}.res.{j}", f"output_blocks.{(n + 1) * i + j}.0", _RES)
            rows += nest(f"up.{i}.attn.{j}", f"output_blocks.{(n + 1) * i + j}.1", TRANSFORMER)
        # Upsampling stands behind the attention where the level has one; `up` runs deepest first.
        place = 2 if c.depth[last - i] else 1
        rows.append(
            Row(f"up.{i}.resample.conv.*", f"output_blocks.{(n + 1) * i + n}.{place}.conv.*")
        )
    return KeyMap(tuple(rows))
