"""score_sde's networks: NCSN++, DDPM++ and its DDPM, all of them one list `all_modules`.

Modules are numbered in the order in which they were made, so the rows depend on the shape.
"""

from __future__ import annotations

from collections.abc import Iterator

from suffuse.networks.ncsnpp import NCSNppConfig
from suffuse.weights.mapping import KeyMap, Op, Row, nest

# "Network in network", a linear layer over channels, is kept as (in, out).
_NIN = Op("transposed", lambda w: w.T, lambda w: w.T)
_CONV = Op("convolution", lambda w: w.T[:, :, None, None], lambda w: w[:, :, 0, 0].T)

_LINEAR = (Row("*", "*"),)
_HEAD = (Row("norm.*", "*"),), (Row("conv.*", "*"),)


def _residual(c: NCSNppConfig) -> tuple[Row, ...]:
    skip = (
        (Row("skip.*", "Conv_2.*"),)
        if c.biggan
        else (Row("skip.weight", "NIN_0.W", _CONV), Row("skip.bias", "NIN_0.b"))
    )
    return (
        Row("norm1.*", "GroupNorm_0.*"),
        Row("conv1.*", "Conv_0.*"),
        Row("time.*", "Dense_0.*"),
        Row("norm2.*", "GroupNorm_1.*"),
        Row("conv2.*", "Conv_1.*"),
        *skip,
    )


_ATTENTION = (
    Row("pixels.norm.*", "GroupNorm_0.*"),
    *(
        row
        for n, name in enumerate(("q", "k", "v", "out"))
        for row in (
            Row(f"pixels.{name}.weight", f"NIN_{n}.W", _NIN),
            Row(f"pixels.{name}.bias", f"NIN_{n}.b"),
        )
    ),
)


def score_sde(c: NCSNppConfig) -> KeyMap:
    """The rows for a network of this shape."""
    rows: list[Row] = []
    for number, (ours, part) in enumerate(_modules(c)):
        rows += nest(ours, f"all_modules.{number}", part)
    return KeyMap(tuple(rows), ignore=("sigmas",))  # NCSN's noise scales, of no use here


Part = tuple[str, tuple[Row, ...]]


def _modules(c: NCSNppConfig) -> Iterator[Part]:
    """Our name of every module in their order, and the rows inside."""
    residual, resample = _residual(c), (Row("conv.*", "Conv_0.*"),)
    change = residual if c.biggan else resample
    if c.embedding == "fourier":
        yield "time", (Row("frequencies", "W"),)
    yield "time.fc1", _LINEAR
    yield "time.fc2", _LINEAR
    yield "stem", _LINEAR
    last = len(c.multiples) - 1
    for i in range(last + 1):
        for j in range(c.blocks):
            yield f"down.{i}.blocks.{j}", residual
            if c.attends(i):
                yield f"down.{i}.attn.{j}", _ATTENTION
        if i < last:
            yield f"down.{i}.resample", change
            if c.input_pyramid == "residual":
                yield f"down.{i}.pyramid", (Row("conv.*", f"{_fir_name(c)}.*"),)
            elif c.input_pyramid == "input_skip":
                yield f"down.{i}.pyramid", (Row("*", "Conv_0.*"),)
    yield "mid.0", residual
    yield "mid.1", _ATTENTION
    yield "mid.2", residual
    for k in range(last + 1):  # deepest first
        for j in range(c.blocks + 1):
            yield f"up.{k}.blocks.{j}", residual
        if c.attends(last - k):
            yield f"up.{k}.attn.0", _ATTENTION
        if c.output_pyramid:
            yield f"up.{k}.tap", _HEAD[0]
            yield f"up.{k}.tap", _HEAD[1]
        if k < last:
            yield f"up.{k}.resample", change
    if not c.output_pyramid:
        yield "head", _HEAD[0]
        yield "head", _HEAD[1]


def _fir_name(c: NCSNppConfig) -> str:
    return "Conv2d_0" if c.fir else "Conv_0"
