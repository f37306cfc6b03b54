"""guided-diffusion's and improved-diffusion's networks: U-Net and noisy classifier.

A layer over a sequence of pixels is a convolution of length 1 there. The outputs of `qkv` stand
ordered by head first, [head][q|k|v], in all published files but `64x64_diffusion.pt`, which has
ours (its "new attention order").
"""

from __future__ import annotations

from suffuse.networks.classifier import ClassifierConfig
from suffuse.networks.pixel import ADMConfig
from suffuse.weights.mapping import POINTWISE, SAME, SEQUENCE, TRANSPOSED, KeyMap, Op, Row, chain
from suffuse.weights.maps.openai_unet import Attend, numbered


def by_head(heads: int) -> Op:
    """[head][q|k|v] as [q|k|v][head], along the first dimension."""
    return Op(
        f"by {heads} heads",
        lambda w: w.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2),
        lambda w: w.unflatten(0, (3, heads, -1)).transpose(0, 1).flatten(0, 2),
    )


def _attention(c: ADMConfig, new_order: bool) -> Attend:
    def rows(level: int, up: bool) -> tuple[Row, ...]:
        heads = c.up_heads if up and c.up_heads else c.heads
        order = SAME if new_order else by_head(heads[level])
        return (
            Row("norm.*", "norm.*"),
            Row("qkv.weight", "qkv.weight", chain(SEQUENCE, order)),
            Row("qkv.bias", "qkv.bias", order),
            Row("out.weight", "proj_out.weight", SEQUENCE),
            Row("out.bias", "proj_out.bias"),
        )

    return rows


def adm_unet(c: ADMConfig, new_order: bool = False) -> KeyMap:
    """The rows for a U-Net of this shape, in either order of q, k and v."""
    return KeyMap(
        (
            *numbered(c.blocks, c.attends, _attention(c, new_order)),
            Row("vector.weight", "label_emb.weight", TRANSPOSED),
            Row("head.norm.*", "out.0.*"),
            Row("head.conv.*", "out.2.*"),
        )
    )


def adm_classifier(c: ClassifierConfig, new_order: bool = False) -> KeyMap:
    """The rows for a classifier of this shape; its pooling has the new order in any case."""
    rows = numbered(c.net.blocks, c.net.attends, _attention(c.net, new_order))
    return KeyMap((*rows, *_POOLS[c.pool]))


_POOLS = {
    "attention": (
        Row("pool.norm.*", "out.0.*"),
        Row("pool.position", "out.2.positional_embedding", TRANSPOSED),
        Row("pool.qkv.weight", "out.2.qkv_proj.weight", SEQUENCE),
        Row("pool.qkv.bias", "out.2.qkv_proj.bias"),
        Row("pool.out.weight", "out.2.c_proj.weight", SEQUENCE),
        Row("pool.out.bias", "out.2.c_proj.bias"),
    ),
    "adaptive": (
        Row("pool.norm.*", "out.0.*"),
        Row("pool.out.weight", "out.3.weight", POINTWISE),
        Row("pool.out.bias", "out.3.bias"),
    ),
    "spatial": (
        Row("pool.fc1.*", "out.0.*"),
        Row("pool.fc2.*", "out.2.*"),
    ),
    "spatial_v2": (
        Row("pool.fc1.*", "out.0.*"),
        Row("pool.between.0.*", "out.1.*"),
        Row("pool.fc2.*", "out.3.*"),
    ),
}
