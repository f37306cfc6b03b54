"""The autoregressive prior in use: from captions to CLIP embeddings of pictures of them.

2204.06125, section 2.2. The dot product of caption and picture is drawn from the upper half of its
distribution, whose captions describe their pictures better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike

import torch
from torch import Tensor
from torch.nn.functional import normalize

from suffuse.errors import SuffuseError
from suffuse.networks.ar_prior import ARPrior, Told
from suffuse.systems.clip import Clip
from suffuse.weights.ar_prior import open_ar_prior
from suffuse.weights.parts import Place


def load_ar_prior(
    folder: str | PathLike[str], clip: Clip, place: Place | None = None
) -> AutoregressivePrior:
    """The prior of a folder that `suffuse train ar-prior` wrote, with its CLIP.

    Raises SuffuseError for a CLIP of another width or with other weights.
    """
    net, trained = open_ar_prior(folder, place)
    if net.config.embedding != clip.width:
        raise SuffuseError(
            f"{folder}: predicts embeddings of {net.config.embedding} numbers, and those of "
            f"{clip.info.name} have {clip.width}"
        )
    if trained is not None and trained != clip.info.hash():
        raise SuffuseError(f"{folder}: was trained with another CLIP than {clip.info.name}")
    return AutoregressivePrior(net, clip)


@dataclass(frozen=True, eq=False)
class AutoregressivePrior:
    """A prior and the CLIP in whose space it draws."""

    net: ARPrior
    clip: Clip

    def imagine(self, texts: Sequence[str], seeds: Sequence[int], guidance: float = 2.0) -> Tensor:
        """An embedding for each caption, (B, D) of length 1; row i depends on seed i alone."""
        return sample(self.net, self.clip.ids(texts), self.clip.texts(texts), seeds, guidance)


@torch.inference_mode()
def sample(
    net: ARPrior, ids: Tensor, text: Tensor, seeds: Sequence[int], guidance: float = 2.0
) -> Tensor:
    """Embeddings (B, D) of length 1, on the CPU.

    ids, text: the captions' tokens (B, L), and their CLIP embeddings (B, D) of length 1
    seeds: one a row, each of a generator of its own
    guidance: classifier-free; 1 = none

    Raises SuffuseError for captions or embeddings of another length than the prior's.
    """
    device, rows = net.out.weight.device, len(ids)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    dots = net.config.dots
    upper = dots // 2 + (_uniform(generators) * (dots - dots // 2)).long()  # (B,)
    many = 1 if guidance == 1 else 2  # the second half is told nothing
    ids, text, upper = (torch.cat([part] * many).to(device) for part in (ids, text, upper))
    told = Told(ids, text, upper, torch.arange(many * rows, device=device) < rows)
    logits, cache = net.begin(told)
    found: list[Tensor] = []
    while True:
        found.append(_drawn(_mixed(logits, guidance), _uniform(generators)))
        if len(found) == net.config.coordinates:
            break
        logits = net.go_on(found[-1].repeat(many).to(device), cache)
    made = net.coordinates.embedding(torch.stack(found, 1).to(device))
    return normalize(made.float(), dim=1).cpu()


def _mixed(logits: Tensor, guidance: float) -> Tensor:
    """`null + guidance * (told - null)`, (B, buckets) float64 on the CPU."""
    logits = logits.cpu().double()  # not every device has float64
    if guidance == 1:
        return logits
    told, null = logits.chunk(2)
    return null + guidance * (told - null)


def _uniform(generators: list[torch.Generator]) -> Tensor:
    """A number in [0, 1) from each, (B,) float64."""
    return torch.stack([torch.rand((), generator=g, dtype=torch.float64) for g in generators])


def _drawn(logits: Tensor, uniform: Tensor) -> Tensor:
    """A bucket by each row's probabilities, (B,) int64: where their sum passes the number."""
    sums = logits.softmax(1).cumsum(1)
    found = torch.searchsorted(sums, uniform[:, None] * sums[:, -1:], right=True)
    return found[:, 0].clamp_max(logits.shape[1] - 1)
