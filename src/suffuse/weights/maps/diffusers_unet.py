"""diffusers' UNet2DConditionModel, as folders of Stable Diffusion 1 and 2 hold it."""

from __future__ import annotations

from suffuse.weights.mapping import KeyMap, Row, nest
from suffuse.weights.maps.blocks import DIFFUSERS_RES, TRANSFORMER

DIFFUSERS_UNET = KeyMap(
    (
        Row("stem.*", "conv_in.*"),
        Row("time.fc{n}.*", "time_embedding.linear_{n}.*"),
        *nest("down.{i}.res.{j}", "down_blocks.{i}.resnets.{j}", DIFFUSERS_RES),
        *nest("down.{i}.attn.{j}", "down_blocks.{i}.attentions.{j}", TRANSFORMER),
        Row("down.{i}.resample.conv.*", "down_blocks.{i}.downsamplers.0.conv.*"),
        *nest("mid.res.{j}", "mid_block.resnets.{j}", DIFFUSERS_RES),
        *nest("mid.attn.{j}", "mid_block.attentions.{j}", TRANSFORMER),
        *nest("up.{i}.res.{j}", "up_blocks.{i}.resnets.{j}", DIFFUSERS_RES),
        *nest("up.{i}.attn.{j}", "up_blocks.{i}.attentions.{j}", TRANSFORMER),
        Row("up.{i}.resample.conv.*", "up_blocks.{i}.upsamplers.0.conv.*"),
        Row("head.norm.*", "conv_norm_out.*"),
        Row("head.conv.*", "conv_out.*"),
    ),
)
