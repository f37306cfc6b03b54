"""What every system that resolves requests is called by: `generate` and `stream`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from suffuse.systems import generate
from suffuse.systems.request import Progress, Request

if TYPE_CHECKING:
    from PIL.Image import Image

    from suffuse.systems.clip import Clip


class _System(generate.Drawing, Protocol):
    def resolve(self, request: Request) -> Request: ...
    def stream(
        self,
        request: Request,
        *,
        noise: Tensor | None = None,
        together: int = 1,
        judge: Clip | None = None,
    ) -> Iterator[Progress]: ...


class Generates:
    """The calls of a system that has `resolve` and `job`."""

    def generate(
        self: _System,
        prompt: str | Request = "",
        negative: str = "",
        *,
        noise: Tensor | None = None,
        together: int = 1,
        judge: Clip | None = None,
        **fields: Any,
    ) -> list[Image]:
        """Pictures for a prompt, or for a request; `fields` are those of `Request`.

        noise: what the first sampler starts from, standard normal, a row each, in place of the
            seed's
        together: how many images share a batch. Numbers may differ in the last digits with the
            batch size, so the default keeps every image the same alone or among others.
        judge: the CLIP that says which pictures are kept of `best_of`; the bundled one by default
        """
        request = prompt if isinstance(prompt, Request) else Request(prompt, negative, **fields)
        progress = self.stream(request, noise=noise, together=together, judge=judge)
        return [step.result for step in progress if step.result is not None]

    def stream(
        self: _System,
        request: Request,
        *,
        noise: Tensor | None = None,
        together: int = 1,
        judge: Clip | None = None,
    ) -> Iterator[Progress]:
        """The same, step by step, each with a preview on demand; image i uses seed + i."""
        drawn = generate.stream(self, [self.resolve(request)], noise, together, judge)
        yield from (step for _, step in drawn)
