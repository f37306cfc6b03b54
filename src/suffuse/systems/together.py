"""Several requests as one batch: they share every call of the network, and nothing else.

What may differ between them is said by `request.OWN`; all the rest must be the same, and `key`
tells. A picture of a batch is the picture that its request alone would give: each row has its own
noise, prompt and guidance, and no operation of the networks looks across rows. See docs/together.md
for how exactly that holds in floating point.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import fields

from suffuse.errors import SuffuseError
from suffuse.systems import generate
from suffuse.systems.latent import LatentDiffusion
from suffuse.systems.registry import System, suited
from suffuse.systems.request import OWN, Progress, Request


def key(system: System, request: Request) -> Hashable:
    """Of a resolved request: those of one model with equal keys may share a batch."""
    shared = tuple(getattr(request, f.name) for f in fields(request) if f.name not in OWN)
    # Without guidance the network is asked once, not twice; a start from a picture or a mask is
    # another way through the sampler; and a longer prompt is read in more windows.
    path = (request.guidance == 1, request.image is None, request.mask is None)
    windows = system.windows(request) if isinstance(system, LatentDiffusion) else 1
    return (*shared, *path, windows)


def stream(system: System, requests: Sequence[Request]) -> Iterator[tuple[int, Progress]]:
    """All pictures of the requests in one batch, step by step: which request, and its step.

    Whoever loses interest in a request passes over its steps; to stop them all, close the
    generator. Raises SuffuseError as `resolve` does, and for requests that cannot share a batch.
    """
    if not requests:
        return
    system = suited(system, requests[0])
    resolved = [system.resolve(request) for request in requests]
    if len({key(system, request) for request in resolved}) > 1:
        raise SuffuseError(
            "these requests cannot share a batch: only prompts, seeds and guidance may differ"
        )
    yield from generate.stream(system, resolved, together=sum(r.drawn for r in resolved))
