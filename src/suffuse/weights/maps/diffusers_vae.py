"""diffusers' AutoencoderKL and VQModel; folders of 2022 name attention's layers differently."""

from __future__ import annotations

from suffuse.weights.mapping import KeyMap, Row, nest
from suffuse.weights.maps.blocks import DIFFUSERS_ATTENTION, DIFFUSERS_RES


def _half(part: str, blocks: str, theirs: str, resample: str) -> tuple[Row, ...]:
    """Encoder or decoder: a stem, the ladder, the middle, a head."""
    return (
        Row(f"{part}.stem.*", f"{part}.conv_in.*"),
        *nest(
            f"{part}.{blocks}.{{i}}.res.{{j}}",
            f"{part}.{theirs}.{{i}}.resnets.{{j}}",
            DIFFUSERS_RES,
        ),
        *nest(
            f"{part}.{blocks}.{{i}}.attn.{{j}}",
            f"{part}.{theirs}.{{i}}.attentions.{{j}}",
            DIFFUSERS_ATTENTION,
        ),
        Row(f"{part}.{blocks}.{{i}}.resample.conv.*", f"{part}.{theirs}.{{i}}.{resample}.0.conv.*"),
        *nest(f"{part}.mid.res.{{j}}", f"{part}.mid_block.resnets.{{j}}", DIFFUSERS_RES),
        *nest(f"{part}.mid.attn", f"{part}.mid_block.attentions.0", DIFFUSERS_ATTENTION),
        Row(f"{part}.head.norm.*", f"{part}.conv_norm_out.*"),
        Row(f"{part}.head.conv.*", f"{part}.conv_out.*"),
        Row(f"{part}.skip.*", f"{part}.skip.*"),  # our own; diffusers has none
    )


DIFFUSERS_VAE = KeyMap(
    (
        *_half("encoder", "down", "down_blocks", "downsamplers"),
        *_half("decoder", "up", "up_blocks", "upsamplers"),
        Row("quant.*", "quant_conv.*"),
        Row("post_quant.*", "post_quant_conv.*"),
        Row("quantizer.codes", "quantize.embedding.weight"),
    )
)
