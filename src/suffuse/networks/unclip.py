"""How CLIP's image embeddings enter unCLIP's decoder: through two doors of its U-Net.

Ramesh et al. 2022 (arXiv 2204.06125), section 2.1: the embedding is projected and added to that of
the timestep, and projected into four tokens that join the caption's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from suffuse.networks.families import silence


class ImageProjection(nn.Module):
    """Image embeddings (B, D) -> tokens (B, N, W) of the context, vector (B, E) beside the time.

    With `hidden` the way to the tokens has a middle layer that wide: what stands where in a picture
    is no linear function of its embedding. `null` is the embedding that stands for none, learned
    while some are left out of training.
    `scale` multiplies embeddings on their way in: 1 for checkpoints that read them as CLIP made
    them, the root of D for unit-length ones, whose numbers are then about 1.
    """

    def __init__(
        self,
        embedding: int,
        context: int,
        time: int,
        tokens: int = 4,
        scale: float = 1.0,
        hidden: int | None = None,
    ):
        super().__init__()
        self.count, self.context, self.time = tokens, context, time
        self.scale, self.hidden = scale, hidden
        self.null = nn.Parameter(torch.zeros(embedding))
        self.vector = nn.Linear(embedding, time)
        last = nn.Linear(hidden or embedding, tokens * context)
        self.tokens: nn.Module = last
        if hidden is not None:
            self.tokens = nn.Sequential(nn.Linear(embedding, hidden), nn.SiLU(), last)
        # Added to a network that is trained already, the vector begins by changing nothing.
        nn.init.normal_(last.weight, std=last.in_features**-0.5)
        nn.init.zeros_(last.bias)
        silence(self.vector)

    @property
    def embedding(self) -> int:
        """How many numbers an embedding has, D."""
        return len(self.null)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        z = z.to(self.vector.weight.dtype) * self.scale
        return self.tokens(z).unflatten(1, (self.count, -1)), self.vector(z)

    def nothing(self) -> tuple[Tensor, Tensor]:
        """What enters where there is no embedding: (1, N, W) and (1, E)."""
        return self(self.null[None])

    def keep(self, z: Tensor, kept: Tensor) -> Tensor:
        """Embeddings (B, D) where `kept` (B,) bool is true, the one for none elsewhere."""
        return torch.where(kept[:, None], z, self.null.to(z.dtype))


class TextProjection(nn.Module):
    """Karlo's doors: those of the image, and the caption's, which were a transformer's in GLIDE.

    diffusers calls it UnCLIPTextProjModel. D is the width of embeddings, and that of token states S
    unless `states` says another. `scale` multiplies both embeddings, as in `ImageProjection`.
    """

    def __init__(
        self,
        embedding: int,
        context: int,
        time: int,
        tokens: int = 4,
        states: int | None = None,
        scale: float = 1.0,
    ):
        super().__init__()
        self.image = ImageProjection(embedding, context, time, tokens, scale)
        self.vector = nn.Linear(embedding, time)
        self.states = nn.Linear(states or embedding, context)
        self.norm = nn.LayerNorm(context)

    def forward(self, z: Tensor, text: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """Image and text embeddings z and text (B, D), states of a caption's tokens (B, L, S) ->
        tokens (B, N + L, W), the image's first, and vector (B, E)."""
        tokens, vector = self.image(z)
        text, states = (part.to(self.vector.weight.dtype) for part in (text, states))
        words = self.norm(self.states(states))  # (B, L, W)
        return torch.cat((tokens, words), dim=1), vector + self.vector(text * self.image.scale)
