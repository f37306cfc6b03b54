"""CompVis' autoencoders: below `first_stage_model.` in single files, or alone in theirs.

Its decoder numbers levels from the image inwards, ours (and diffusers') in the order they run.
"""

from __future__ import annotations

from suffuse.networks.autoencoder import AutoencoderConfig
from suffuse.weights.mapping import POINTWISE, KeyMap, Row, nest

_RES = (
    Row("norm{n}.*", "norm{n}.*"),
    Row("conv{n}.*", "conv{n}.*"),
    Row("skip.*", "nin_shortcut.*"),
)

# Attention by 1 x 1 convolutions.
_ATTENTION = (
    Row("norm.*", "norm.*"),
    *(
        row
        for ours, theirs in (("q", "q"), ("k", "k"), ("v", "v"), ("out", "proj_out"))
        for row in (
            Row(f"{ours}.weight", f"{theirs}.weight", POINTWISE),
            Row(f"{ours}.bias", f"{theirs}.bias"),
        )
    ),
)


def ldm_vae(c: AutoencoderConfig) -> KeyMap:
    """The rows for an autoencoder of this shape."""
    rows = [
        Row("quant.*", "quant_conv.*"),
        Row("post_quant.*", "post_quant_conv.*"),
        Row("quantizer.codes", "quantize.embedding.weight"),
    ]
    for part in ("encoder", "decoder"):
        rows += [
            Row(f"{part}.stem.*", f"{part}.conv_in.*"),
            *nest(f"{part}.mid.res.0", f"{part}.mid.block_1", _RES),
            *nest(f"{part}.mid.attn", f"{part}.mid.attn_1", _ATTENTION),
            *nest(f"{part}.mid.res.1", f"{part}.mid.block_2", _RES),
            Row(f"{part}.head.norm.*", f"{part}.norm_out.*"),
            Row(f"{part}.head.conv.*", f"{part}.conv_out.*"),
        ]
    rows += nest("encoder.down.{i}.res.{j}", "encoder.down.{i}.block.{j}", _RES)
    rows += nest("encoder.down.{i}.attn.{j}", "encoder.down.{i}.attn.{j}", _ATTENTION)
    rows.append(
        Row("encoder.down.{i}.resample.conv.*", "encoder.down.{i}.downsample.conv.*"),
    )
    last = len(c.mirrored.channels) - 1
    for i in range(last + 1):
        rows += nest(f"decoder.up.{i}.res.{{j}}", f"decoder.up.{last - i}.block.{{j}}", _RES)
        rows += nest(f"decoder.up.{i}.attn.{{j}}", f"decoder.up.{last - i}.attn.{{j}}", _ATTENTION)
        rows.append(
            Row(f"decoder.up.{i}.resample.conv.*", f"decoder.up.{last - i}.upsample.conv.*")
        )
    return KeyMap(tuple(rows), ignore=("loss.*", "model_ema.*"))  # what its training left
