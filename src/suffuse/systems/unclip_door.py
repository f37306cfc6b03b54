"""How image embeddings enter a latent diffusion model that was not made for them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from suffuse.diffusion.cond import Cond
from suffuse.diffusion.schedule import Schedule
from suffuse.errors import SuffuseError
from suffuse.networks.embed import sinusoid


class Door(Protocol):
    """How image embeddings enter a latent model: `ImageProjection`, or `NoisedEmbedding`."""

    @property
    def embedding(self) -> int:
        """How many numbers an embedding has, D."""
        ...

    @property
    def time(self) -> int:
        """How many numbers the vector has."""
        ...

    @property
    def context(self) -> int | None:
        """How many numbers each token has; None where there are none."""
        ...

    def __call__(self, z: Tensor) -> tuple[Tensor | None, Tensor]:
        """Embeddings (B, D) -> tokens (B, N, context) and vector (B, time)."""
        ...

    def nothing(self) -> tuple[Tensor | None, Tensor]:
        """What enters where there is no embedding, of one row."""
        ...


def joined(words: Cond, doors: tuple[Tensor | None, Tensor], said: Tensor, seen: Tensor) -> Cond:
    """Captions and embeddings as one conditioning. What is absent is not attended to.

    words: of B captions;  doors: what a `Door` made of B embeddings
    said, seen: (B,) bool, whether there is a caption, and an embedding; where there is neither,
        the empty caption says so, as everywhere
    """
    tokens, vector = doors
    if tokens is None or words.tokens is None:
        return words.merge(Cond(tokens=tokens, vector=vector))
    length, count = words.tokens.shape[1], tokens.shape[1]
    mask = torch.cat(
        [(said | ~seen)[:, None].expand(-1, length), seen[:, None].expand(-1, count)], dim=1
    )
    if words.mask is not None:
        mask[:, :length] &= words.mask
    return Cond(vector=vector, tokens=torch.cat((words.tokens, tokens), dim=1), mask=mask)


@dataclass(frozen=True, eq=False)
class NoisedEmbedding:
    """Stable unCLIP's: an embedding with noise, and beside it a sinusoid that says how much.

    Both are the vector, and zeros are none. `mean` and `std` (D,) normalise embeddings for the
    noise of step `level` of `schedule`: more of it makes freer variations.
    """

    mean: Tensor
    std: Tensor
    schedule: Schedule
    level: int = 0
    context: None = None

    def __post_init__(self) -> None:
        if not 0 <= self.level < self.schedule.T:
            raise SuffuseError(
                f"noise_level must be from 0 to {self.schedule.T - 1}, not {self.level}"
            )

    @property
    def embedding(self) -> int:
        return len(self.mean)

    @property
    def time(self) -> int:
        return 2 * self.embedding

    @property
    def clean(self) -> NoisedEmbedding:
        """The same for embeddings without noise."""
        return replace(self, level=0)

    def blurred(self, z: Tensor, noise: Tensor) -> Tensor:
        """Embeddings (B, D) with noise (B, D)."""
        at = self.schedule.at(torch.tensor([self.level]))
        alpha, sigma = at.alpha.item(), at.sigma.item()
        return (alpha * (z - self.mean) / self.std + sigma * noise) * self.std + self.mean

    def __call__(self, z: Tensor) -> tuple[None, Tensor]:
        told = sinusoid(torch.full((len(z),), self.level, device=z.device), self.embedding)
        return None, torch.cat((z, told), dim=1)

    def nothing(self) -> tuple[None, Tensor]:
        return None, torch.zeros(1, self.time, device=self.mean.device)
