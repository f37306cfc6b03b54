"""OpenAI's numbering of a U-Net's blocks, which CompVis kept.

Blocks are numbered through all levels, so the rows depend on the shape: with n residual blocks a
level, level i begins at input block 1 + (n + 1) i and ends with its downsampling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from suffuse.weights.mapping import Row, nest

RES = (
    Row("norm1.*", "in_layers.0.*"),
    Row("conv1.*", "in_layers.2.*"),
    Row("time.*", "emb_layers.1.*"),
    Row("norm2.*", "out_layers.0.*"),
    Row("conv2.*", "out_layers.3.*"),
    Row("skip.*", "skip_connection.*"),
)
Attend = Callable[[int, bool], Sequence[Row]]  # the rows of a level's attention, on the way up?


def numbered(n: int, attends: Sequence[bool], attention: Attend) -> list[Row]:
    """The rows of stem, embedding, way down, middle and way up; heads differ.

    n: residual blocks a level; attends: whether there is attention, by level
    """
    last = len(attends) - 1
    rows = [
        Row("stem.*", "input_blocks.0.0.*"),
        Row("time.fc1.*", "time_embed.0.*"),
        Row("time.fc2.*", "time_embed.2.*"),
        *nest("mid.res.0", "middle_block.0", RES),
        *nest("mid.attn.0", "middle_block.1", attention(last, False)),
        *nest("mid.res.1", "middle_block.2", RES),
    ]
    for i in range(last + 1):
        inner, outer = attention(i, False), attention(last - i, True)  # `up` runs deepest first
        for j in range(n):
            rows += nest(f"down.{i}.res.{j}", f"input_blocks.{1 + (n + 1) * i + j}.0", RES)
            rows += nest(f"down.{i}.attn.{j}", f"input_blocks.{1 + (n + 1) * i + j}.1", inner)
        after = f"input_blocks.{(n + 1) * (i + 1)}.0"
        rows.append(Row(f"down.{i}.resample.conv.*", f"{after}.op.*"))
        rows += nest(f"down.{i}.resample", after, RES)
        for j in range(n + 1):
            rows += nest(f"up.{i}.res.{j}", f"output_blocks.{(n + 1) * i + j}.0", RES)
            rows += nest(f"up.{i}.attn.{j}", f"output_blocks.{(n + 1) * i + j}.1", outer)
        # Upsampling stands behind the attention where the level has one.
        after = f"output_blocks.{(n + 1) * i + n}.{2 if attends[last - i] else 1}"
        rows.append(Row(f"up.{i}.resample.conv.*", f"{after}.conv.*"))
        rows += nest(f"up.{i}.resample", after, RES)
    return rows
