"""diffusers' U-Nets: UNet2DConditionModel of Stable Diffusion's folders, UNet2DModel of DDPM's, and
both of Karlo's."""

from __future__ import annotations

from collections.abc import Sequence

from suffuse.weights.mapping import TRANSPOSED, KeyMap, Row, nest
from suffuse.weights.maps.blocks import (
    DIFFUSERS_ATTENTION,
    DIFFUSERS_JOINT,
    DIFFUSERS_RES,
    TRANSFORMER,
)


def _unet(attention: Sequence[Row]) -> tuple[Row, ...]:
    return (
        Row("stem.*", "conv_in.*"),
        Row("time.fc{n}.*", "time_embedding.linear_{n}.*"),
        *nest("down.{i}.res.{j}", "down_blocks.{i}.resnets.{j}", DIFFUSERS_RES),
        *nest("down.{i}.attn.{j}", "down_blocks.{i}.attentions.{j}", attention),
        Row("down.{i}.resample.conv.*", "down_blocks.{i}.downsamplers.0.conv.*"),
        *nest("down.{i}.resample", "down_blocks.{i}.downsamplers.0", DIFFUSERS_RES),
        *nest("mid.res.{j}", "mid_block.resnets.{j}", DIFFUSERS_RES),
        *nest("mid.attn.{j}", "mid_block.attentions.{j}", attention),
        *nest("up.{i}.res.{j}", "up_blocks.{i}.resnets.{j}", DIFFUSERS_RES),
        *nest("up.{i}.attn.{j}", "up_blocks.{i}.attentions.{j}", attention),
        Row("up.{i}.resample.conv.*", "up_blocks.{i}.upsamplers.0.conv.*"),
        *nest("up.{i}.resample", "up_blocks.{i}.upsamplers.0", DIFFUSERS_RES),
        Row("head.norm.*", "conv_norm_out.*"),
        Row("head.conv.*", "conv_out.*"),
    )


DIFFUSERS_UNET = KeyMap(
    (*_unet(TRANSFORMER), Row("vector.fc{n}.*", "class_embedding.linear_{n}.*"))
)

DIFFUSERS_UNET2D = KeyMap(
    (
        *_unet(DIFFUSERS_ATTENTION),
        Row("vector.weight", "class_embedding.weight", TRANSPOSED),
    )
)

DIFFUSERS_KARLO = KeyMap(_unet(DIFFUSERS_JOINT))
