"""SR3's U-Net in its public implementation (Janspiry), below `denoise_fn.`, and its DDPM sibling.

Blocks are numbered along each way, changes of resolution among them.
"""

from __future__ import annotations

from suffuse.networks.pixel import SR3Config
from suffuse.weights.mapping import POINTWISE, KeyMap, Op, Row, nest

_ATTENTION = (
    Row("norm.*", "norm.*"),
    Row("qkv.weight", "qkv.weight", POINTWISE),
    Row("out.weight", "out.weight", POINTWISE),
    Row("out.bias", "out.bias"),
)


def noisy_first(out: int) -> Op:
    """The stem's inputs (condition, x) as (x, condition), where x has `out` channels."""
    return Op("noisy first", lambda w: w.roll(out, dims=1), lambda w: w.roll(-out, dims=1))


def _res(c: SR3Config) -> tuple[Row, ...]:
    label = "noise_func.noise_func.0" if c.continuous else "mlp.1"
    return (
        *(Row(f"norm{n}.*", f"block{n}.block.0.*") for n in (1, 2)),
        *(Row(f"conv{n}.*", f"block{n}.block.3.*") for n in (1, 2)),
        Row("time.*", f"{label}.*"),
        Row("skip.*", "res_conv.*"),
    )


def sr3_unet(c: SR3Config) -> KeyMap:
    """The rows for a U-Net of this shape."""
    res, label = _res(c), "noise_level_mlp" if c.continuous else "time_mlp"
    rows = [
        Row("stem.weight", "downs.0.weight", noisy_first(c.out_channels)),
        Row("stem.bias", "downs.0.bias"),
        Row("time.fc1.*", f"{label}.1.*"),
        Row("time.fc2.*", f"{label}.3.*"),
        *nest("mid.res.{j}", "mid.{j}.res_block", res),
        *nest("mid.attn.{j}", "mid.{j}.attn", _ATTENTION),
        Row("head.norm.*", "final_conv.block.0.*"),
        Row("head.conv.*", "final_conv.block.3.*"),
    ]
    # The stem is the first on the way down; each level ends with its change of resolution.
    for way, first, n in (("down", 1, c.blocks), ("up", 0, c.blocks + 1)):
        for i in range(len(c.channels)):
            at = first + (n + 1) * i
            for j in range(n):
                rows += nest(f"{way}.{i}.res.{j}", f"{way}s.{at + j}.res_block", res)
                rows += nest(f"{way}.{i}.attn.{j}", f"{way}s.{at + j}.attn", _ATTENTION)
            rows.append(Row(f"{way}.{i}.resample.conv.*", f"{way}s.{at + n}.conv.*"))
    return KeyMap(tuple(rows), ignore=("time_mlp.0.inv_freq",))
