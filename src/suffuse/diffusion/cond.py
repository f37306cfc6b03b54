"""The conditioning container: four doors into a network, and nothing about what comes through them.

Conditioning is named by how it enters the network, not by what it means: a class label and a pooled
text embedding are both a `vector`. Encoders fill doors and produce their own null; training dropout
is `cond.where(keep, null)`, so classifier-free training and guided sampling share one null.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

DOORS = ("vector", "tokens", "concat", "ground")


@dataclass(frozen=True, eq=False)
class Cond:
    """Conditioning of a batch; a door nobody uses is None.

    `mask` is True where a token counts. No mask means that all tokens do.
    """

    vector: Tensor | None = None  # (B, D), joins the time embedding
    tokens: Tensor | None = None  # (B, L, D), cross-attended
    mask: Tensor | None = None  # (B, L) bool
    concat: Tensor | None = None  # (B, C, H, W), joins x on channels
    ground: Tensor | None = None  # (B, N, D), gated self-attention

    def __post_init__(self) -> None:
        sizes = {name: len(t) for name, t in self._filled().items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"the doors of one Cond must share a batch size, not {sizes}")
        if self.mask is not None:
            if self.tokens is None or self.mask.shape != self.tokens.shape[:2]:
                raise ValueError("mask (B, L) needs tokens (B, L, D) of the same B and L")
            if self.mask.dtype != torch.bool:
                raise ValueError(f"mask must be bool, not {self.mask.dtype}")

    # ---- shape -----------------------------------------------------------------------------

    @property
    def batch(self) -> int | None:
        """Images in the batch, or None when every door is empty."""
        return next((len(t) for t in self._filled().values()), None)

    def expand(self, n: int) -> Cond:
        """One row repeated for `n` images, without a copy; a batch of `n` is returned unchanged.

        Raises `ValueError` for any other batch size.
        """
        if self.batch in (None, n):
            return self
        if self.batch != 1:
            raise ValueError(f"cannot expand a batch of {self.batch} to {n}")
        return self._map(lambda t: t.expand(n, *t.shape[1:]))

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Cond:
        """Moved to a device, floating-point doors in another dtype; the mask stays boolean."""
        return self._map(
            lambda t: t.to(device=device, dtype=dtype if t.is_floating_point() else None)
        )

    # ---- combining -------------------------------------------------------------------------

    def merge(self, other: Cond) -> Cond:
        """The doors of both, for the same images.

        What both send through one door is joined: vectors on D, tokens on L, concat on channels,
        ground on N. A batch of one is repeated for the other's.
        """
        n = max(self.batch or 1, other.batch or 1)
        a, b = self.expand(n), other.expand(n)
        joined: dict[str, Tensor | None] = {}
        for door in DOORS:
            parts = [t for t in (getattr(a, door), getattr(b, door)) if t is not None]
            joined[door] = torch.cat(parts, 1) if parts else None
        if a.mask is not None or b.mask is not None:
            masks = [c._full_mask() for c in (a, b) if c.tokens is not None]
            joined["mask"] = torch.cat(masks, 1)  # (B, La + Lb)
        return Cond(**joined)

    def where(self, keep: Tensor, null: Cond) -> Cond:
        """Row i of this where `keep[i]` (B,) bool is True, else the null's row.

        A null of one row serves every image. Token sequences of different lengths are padded and
        masked. Raises `ValueError` when the two do not fill the same doors.
        """
        a, b = _aligned([self, null.expand(len(keep))])

        def choose(mine: Tensor, theirs: Tensor) -> Tensor:
            return torch.where(keep.view(-1, *[1] * (mine.dim() - 1)), mine, theirs)

        theirs = b._filled()
        return Cond(**{name: choose(t, theirs[name]) for name, t in a._filled().items()})

    @staticmethod
    def cat(conds: Sequence[Cond]) -> Cond:
        """Batches one after another.

        Token sequences of different lengths are padded with zeros and masked, so that each image
        attends to exactly what it would alone. Raises `ValueError` when they do not fill the same
        doors.
        """
        parts = [c._filled() for c in _aligned(conds)]
        return Cond(**{name: torch.cat([p[name] for p in parts]) for name in parts[0]})

    # ---- inside ----------------------------------------------------------------------------

    def _filled(self) -> dict[str, Tensor]:
        named = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: t for name, t in named if t is not None}

    def _map(self, f: Callable[[Tensor], Tensor]) -> Cond:
        return Cond(**{name: f(t) for name, t in self._filled().items()})

    def _full_mask(self) -> Tensor:
        assert self.tokens is not None
        if self.mask is not None:
            return self.mask
        return torch.ones(self.tokens.shape[:2], dtype=torch.bool, device=self.tokens.device)

    def _padded(self, length: int) -> Cond:
        """Tokens padded with zeros to `length`, with a mask that leaves the padding out."""
        assert self.tokens is not None
        extra = length - self.tokens.shape[1]
        return replace(
            self,
            tokens=F.pad(self.tokens, (0, 0, 0, extra)),  # (B, length, D)
            mask=F.pad(self._full_mask(), (0, extra)),  # (B, length)
        )


def _aligned(conds: Sequence[Cond]) -> list[Cond]:
    """The same conditionings with tokens of one length, and masks in all or none of them."""
    doors = [tuple(d for d in DOORS if getattr(c, d) is not None) for c in conds]
    if len(set(doors)) > 1:
        raise ValueError(
            f"conditionings must fill the same doors, not {' and '.join(map(str, doors))}"
        )
    lengths = [c.tokens.shape[1] for c in conds if c.tokens is not None]
    if len(set(lengths)) > 1 or any(c.mask is not None for c in conds):
        return [c._padded(max(lengths)) for c in conds]
    return list(conds)
