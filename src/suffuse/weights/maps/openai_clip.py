"""OpenAI's CLIP, whose names open_clip kept: both kinds of picture tower, and the text tower."""

from __future__ import annotations

from suffuse.weights.mapping import TRANSPOSED, KeyMap, Op, Row, nest


def _third(i: int) -> Op:
    """One of q, k and v, which these files hold as one. A copy: a view would keep all three."""
    return Op(f"third {i}", lambda w: w.chunk(3)[i].clone(), lambda w: w, piece=i)


_BLOCKS = (
    Row("blocks.{i}.norm{n}.*", "transformer.resblocks.{i}.ln_{n}.*"),
    *(
        Row(f"blocks.{{i}}.attn.{q}.{leaf}", f"transformer.resblocks.{{i}}.attn.in_proj_{leaf}", op)
        for q, op in zip("qkv", map(_third, range(3)))
        for leaf in ("weight", "bias")
    ),
    Row("blocks.{i}.attn.out.*", "transformer.resblocks.{i}.attn.out_proj.*"),
    Row("blocks.{i}.mlp.fc1.*", "transformer.resblocks.{i}.mlp.c_fc.*"),
    Row("blocks.{i}.mlp.fc2.*", "transformer.resblocks.{i}.mlp.c_proj.*"),
)

_TEXT = (
    Row("token.weight", "token_embedding.weight"),
    Row("position.weight", "positional_embedding"),
    *_BLOCKS,
    Row("norm.*", "ln_final.*"),
    Row("projection.weight", "text_projection", TRANSPOSED),
)

_VISION = (
    Row("patch.weight", "conv1.weight"),
    Row("cls", "class_embedding"),
    Row("position.weight", "positional_embedding"),
    Row("pre.*", "ln_pre.*"),
    *_BLOCKS,
    Row("norm.*", "ln_post.*"),
    Row("projection.weight", "proj", TRANSPOSED),
)


def _norm(ours: str, theirs: str) -> list[Row]:
    """A batch norm: its weights, and what it counted in training."""
    leaves = ("running_mean", "running_var", "num_batches_tracked")
    return [
        Row(f"{ours}.*", f"{theirs}.*"),
        *(Row(f"{ours}.{leaf}", f"{theirs}.{leaf}") for leaf in leaves),
    ]


_STEM = (Row("conv{n}.weight", "conv{n}.weight"), *_norm("bn{n}", "bn{n}"))

_RESNET = (
    *_STEM,
    *(
        row
        for level in range(4)
        for row in nest(
            f"levels.{level}.{{i}}",
            f"layer{level + 1}.{{i}}",
            (
                *_STEM,  # a block's three convolutions are called as the stem's
                Row("shortcut.weight", "downsample.0.weight"),
                *_norm("bn_shortcut", "downsample.1"),
            ),
        )
    ),
    Row("attention.position.weight", "attnpool.positional_embedding"),
    *(Row(f"attention.{q}.*", f"attnpool.{q}_proj.*") for q in "qkv"),
    Row("attention.out.*", "attnpool.c_proj.*"),
)

SCALARS = ("input_resolution", "context_length", "vocab_size")  # OpenAI's archives have them
_SHARED = (Row("logit_scale", "logit_scale"), *nest("text", "", _TEXT))

OPENAI_CLIP = KeyMap((*_SHARED, *nest("image", "visual", _VISION)), SCALARS)
OPENAI_CLIP_RESNET = KeyMap((*_SHARED, *nest("image", "visual", _RESNET)), SCALARS)
