"""unCLIP's diffusion prior: from a caption to the CLIP embedding of a picture of it.

Ramesh et al. 2022, "Hierarchical text-conditional image generation with CLIP latents" (arXiv
2204.06125), section 2.2: a decoder-only transformer with causal attention over the encoded
caption, its CLIP embedding, the timestep, the noised image embedding, and a final query whose
state becomes the prediction of the embedding without noise. Karlo and Kandinsky 2.2 have this
network, which diffusers calls PriorTransformer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from suffuse.errors import SuffuseError
from suffuse.networks.embed import LabelEmbedding
from suffuse.networks.families import silence
from suffuse.networks.transformer import Block, initialise_blocks

BEHIND = 4  # tokens behind the caption's: its embedding, the timestep, x, the query
HIDDEN = -1e4  # added to what must not be seen: exp of it is 0, and half precision holds it


@dataclass(frozen=True)
class PriorConfig:
    """The shape of a prior; the defaults are Karlo's.

    `text_scale` multiplies the caption's embedding on its way in: 1 for checkpoints that read it as
    CLIP made it, the root of `embedding` for unit-length ones, whose numbers are then about 1.
    """

    embedding: int = 768  # numbers in a CLIP embedding, D
    width: int = 2048
    layers: int = 20
    heads: int = 32
    tokens: int = 77  # of a caption, L
    states: int | None = None  # numbers in the state of a token; None: `embedding`
    text_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise SuffuseError(f"prior: width {self.width} does not divide into {self.heads} heads")


class DiffusionPrior(nn.Module):
    """Predicts normalised image embeddings; `mean` and `std` (D,) say what that means.

    >>> prior = DiffusionPrior(PriorConfig(embedding=16, width=32, layers=1, heads=2, tokens=5))
    >>> told = torch.zeros(2, 16), torch.zeros(2, 5, 16), torch.ones(2, 5, dtype=torch.bool)
    >>> prior(torch.randn(2, 16), torch.tensor([7, 8]), *told).shape
    torch.Size([2, 16])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: PriorConfig):
        super().__init__()
        c = self.config = config
        self.states = nn.Linear(c.states or c.embedding, c.width)
        self.text = nn.Linear(c.embedding, c.width)
        self.time = LabelEmbedding(c.width, c.width)
        self.image = nn.Linear(c.embedding, c.width)
        self.query = nn.Parameter(torch.zeros(c.width))
        self.position = nn.Parameter(torch.zeros(c.tokens + BEHIND, c.width))
        self.blocks = nn.ModuleList(Block(c.width, c.heads, 4 * c.width) for _ in range(c.layers))
        self.norm = nn.LayerNorm(c.width)
        self.out = nn.Linear(c.width, c.embedding)
        self.register_buffer("mean", torch.zeros(c.embedding))
        self.register_buffer("std", torch.ones(c.embedding))
        self._initialise()

    def forward(
        self, x: Tensor, label: Tensor, text: Tensor, states: Tensor, mask: Tensor
    ) -> Tensor:
        """The normalised embedding without noise, (B, D).

        x: (B, D), it with noise of the level that `label` (B,) or () names
        text: (B, D), the caption's CLIP embedding
        states, mask: (B, L, Dt), those of its tokens, and (B, L) bool, true where one counts

        Raises SuffuseError for a caption of another length than the prior was made for.
        """
        if states.shape[1] != self.config.tokens:
            raise SuffuseError(
                f"the prior reads captions of {self.config.tokens} tokens, not {states.shape[1]}"
            )
        dtype = self.image.weight.dtype
        last = (
            self.text(text.to(dtype) * self.config.text_scale),
            self.time(label.reshape(-1)).expand(len(x), -1),
            self.image(x.to(dtype)),
            self.query.expand(len(x), -1),
        )
        h = torch.cat((self.states(states.to(dtype)), torch.stack(last, dim=1)), dim=1)
        h = h + self.position  # (B, L + 4, width)
        seen = visible(mask, dtype)
        for block in self.blocks:
            h = block(h, seen)
        return self.out(self.norm(h[:, -1]))

    def normalise(self, z: Tensor) -> Tensor:
        """CLIP's image embeddings (B, D) as the prior diffuses them."""
        return (z - self.mean) / self.std

    def restore(self, x: Tensor) -> Tensor:
        """The reverse of `normalise`."""
        return x * self.std + self.mean

    @torch.no_grad()
    def _initialise(self) -> None:
        """GPT-2's way: branches scaled by depth, and the first guess is the mean embedding."""
        c = self.config
        for entrance in (self.states, self.text, self.image):
            nn.init.normal_(entrance.weight, std=entrance.in_features**-0.5)
            nn.init.zeros_(entrance.bias)
        initialise_blocks(self.blocks, c.width)
        nn.init.normal_(self.query, std=0.02)
        nn.init.normal_(self.position, std=0.01)
        silence(self.out)


def visible(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What attention adds, (B, 1, N, N): tokens see those before them that count, and themselves.

    mask: (B, L) of the caption; the four tokens behind it always count
    """
    hidden = HIDDEN * ~pad(mask, (0, BEHIND), value=True)  # (B, N)
    count = hidden.shape[1]
    later = torch.full((count, count), HIDDEN, device=mask.device).triu(1)
    return (hidden[:, None, None, :] + later).to(dtype)
