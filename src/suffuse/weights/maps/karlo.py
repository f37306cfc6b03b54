"""Karlo's own files: the prior's and the decoder's, as their training wrote them.

All names stand below `model.`. Queries, keys and values lie in one tensor, [head][q|k|v], and
those of a text in another, [head][k|v]; diffusers' script that converts them is the reference
(scripts/convert_kakao_brain_unclip_to_diffusers.py).
"""

from __future__ import annotations

from torch import Tensor

from suffuse.errors import SuffuseError
from suffuse.networks.pixel import ADMConfig
from suffuse.networks.prior import PriorConfig
from suffuse.weights.mapping import SEQUENCE, KeyMap, Op, Row, chain, nest
from suffuse.weights.maps.openai_unet import RES, numbered
from suffuse.weights.maps.prior import TABLE, TOKEN, VECTOR, by_token


def _share(heads: int, parts: int, i: int) -> Op:
    """Part i of a tensor that lies [head][part] along its first dimension."""

    def read(w: Tensor) -> Tensor:
        return w.unflatten(0, (heads, parts, -1))[:, i].flatten(0, 1).clone()

    return Op(f"part {i} of {parts}", read, _one_way)


def _one_way(w: Tensor) -> Tensor:
    raise SuffuseError("Karlo's own files can be read, not written: save a diffusers folder")


def karlo_prior(c: PriorConfig) -> KeyMap:
    """The rows for a prior of this shape, and of the statistics, which lie in a file of their
    own."""
    block = "transformer.resblocks.{i}"
    attention = [
        Row(f"blocks.{{i}}.attn.{name}.*", f"{block}.attn.c_qkv.*", _share(c.heads, 3, i))
        for i, name in enumerate("qkv")
    ]
    return KeyMap(
        (
            Row("states.*", "text_enc_proj.*"),
            Row("text.*", "text_emb_proj.*"),
            Row("time.fc1.*", "time_embed.0.*"),
            Row("time.fc2.*", "time_embed.2.*"),
            Row("image.*", "clip_img_proj.*"),
            Row("query", "prd_emb", TOKEN),
            Row("position", "positional_embedding", TABLE),
            *attention,
            Row("blocks.{i}.attn.out.*", f"{block}.attn.c_proj.*"),
            Row("blocks.{i}.norm{n}.*", f"{block}.ln_{{n}}.*"),
            Row("blocks.{i}.mlp.fc1.*", f"{block}.mlp.c_fc.*"),
            Row("blocks.{i}.mlp.fc2.*", f"{block}.mlp.c_proj.*"),
            Row("norm.*", "final_ln.*"),
            Row("out.*", "out_proj.*"),
            Row("mean", "mean", VECTOR),
            Row("std", "std", VECTOR),
        )
    )


def karlo_unet(c: ADMConfig) -> KeyMap:
    """The rows for the decoder's U-Net of this shape, beside its projections."""

    def attention(level: int, up: bool) -> tuple[Row, ...]:
        heads = c.heads[level]
        of_pixels = [
            Row(f"{name}.weight", "qkv.weight", chain(SEQUENCE, _share(heads, 3, i)))
            for i, name in enumerate("qkv")
        ]
        of_text = [
            Row(f"text_{name}.weight", "encoder_kv.weight", chain(SEQUENCE, _share(heads, 2, i)))
            for i, name in enumerate("kv")
        ]
        return (
            Row("norm.*", "norm.*"),
            *of_pixels,
            *(Row(f"{name}.bias", "qkv.bias", _share(heads, 3, i)) for i, name in enumerate("qkv")),
            *of_text,
            *(
                Row(f"text_{name}.bias", "encoder_kv.bias", _share(heads, 2, i))
                for i, name in enumerate("kv")
            ),
            Row("out.weight", "proj_out.weight", SEQUENCE),
            Row("out.bias", "proj_out.bias"),
        )

    head = (Row("head.norm.*", "out.0.*"), Row("head.conv.*", "out.2.*"))
    return KeyMap((*numbered(c.blocks, c.attends, attention), *head), ignore=PROJECTION)


PROJECTION = (
    "cf_param", "text_feat_proj.*", "clip_emb.*", "clip_tok_proj.*", "text_seq_proj.*",
)  # fmt: skip
UNET = ("time_embed.*", "input_blocks.*", "middle_block.*", "output_blocks.*", "out.*")


def karlo_upsampler(c: ADMConfig) -> KeyMap:
    """The rows for one of the two networks of an upsampler, which have no attention at all."""
    rows = numbered(c.blocks, c.attends, lambda level, up: ())
    # The middle is numbered through, so its second block stands where attention would.
    middle = [row for row in rows if not row.ours.startswith("mid.res.1")]
    head = (Row("head.norm.*", "out.0.*"), Row("head.conv.*", "out.2.*"))
    return KeyMap((*middle, *nest("mid.res.1", "middle_block.1", RES), *head))


def karlo_projection(tokens: int) -> KeyMap:
    """The rows of the decoder's projections, beside its U-Net."""
    order = by_token(tokens)
    return KeyMap(
        (
            Row("image.null", "cf_param"),
            Row("image.vector.*", "clip_emb.*"),
            Row("image.tokens.weight", "clip_tok_proj.weight", order),
            Row("image.tokens.bias", "clip_tok_proj.bias", order),
            Row("vector.*", "text_feat_proj.*"),
            Row("states.*", "text_seq_proj.0.*"),
            Row("norm.*", "text_seq_proj.1.*"),
        ),
        ignore=UNET,
    )
