"""How a picture came about: where each word was attended to, and what every step believed.

Hooks on the network write down what passes through it; they are there only while `recording` is.
See docs/explain.md for what is shown, and for the JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from suffuse.diffusion.grid import Grid
from suffuse.errors import SuffuseError
from suffuse.networks.record import watch_attention, watch_output
from suffuse.systems import generate
from suffuse.systems.latent import LatentDiffusion
from suffuse.systems.registry import System, suited
from suffuse.systems.request import Progress, Request
from suffuse.systems.score_sde import ScoreSDE
from suffuse.systems.unclip import UnCLIP
from suffuse.text.words import Word, words

if TYPE_CHECKING:
    from PIL.Image import Image

Size = tuple[int, int]  # height and width
# What tokens stand for that are no words of the prompt, in the order of `Explanation.words`.
SPECIAL = START, END, PADDING = "(start)", "(end)", "(padding)"


@dataclass(frozen=True, eq=False)
class Explanation:
    """What was written down while a picture was made; n steps, tensors on the CPU.

    request: as it ran
    words: of the prompt, then the tokens that start, end and fill up its windows; places of tokens
        in the sequence of L that the network reads. None for models without words
    kind: what the network predicts: eps, v, x0, flow or score
    alpha, sigma: (n,) float64, the noise level at which each step began
    x0: (n, C, h, w) float32, the clean image as each step predicted it, as the network sees it
    guidance: of each step (C, h, w) float32, the network's answer to the prompt minus that to the
        negative; None where it was asked once only
    attention: (height, width) -> (n, L, height, width) float32, the share of each token in each
        place, averaged over heads and layers of that size; sums to 1 over L
    latent: (C, h, w) float32, what the autoencoder decoded; None for models of pixels
    picture: the finished one
    draw: (1, C, h, w), as the network sees it -> picture
    """

    request: Request
    words: tuple[Word, ...]
    kind: str
    alpha: Tensor
    sigma: Tensor
    x0: Tensor
    guidance: tuple[Tensor | None, ...]
    attention: dict[Size, Tensor]
    latent: Tensor | None
    picture: Image
    draw: Callable[[Tensor], Image]

    @property
    def log_snr(self) -> Tensor:
        """log(alpha^2 / sigma^2), (n,) float64; -inf where nothing is left of the picture."""
        return 2 * (self.alpha.log() - self.sigma.log())

    def maps(self, size: Size) -> Tensor:
        """Attention to each word, (n, words, height, width): the sum over its tokens."""
        found = self.attention[size]
        return torch.stack([found[:, list(word.tokens)].sum(1) for word in self.words], 1)

    def shares(self) -> Tensor:
        """How much of all attention each word got, (words,); together 1."""
        per_size = [self.maps(size).mean((0, 2, 3)) for size in self.attention]
        return torch.stack(per_size).mean(0)

    def to_json(self) -> dict[str, Any]:
        """All of it in what `json` can write, as docs/explain.md describes it."""
        from suffuse.systems.explain_json import described

        return described(self)


@dataclass(eq=False)
class Recording:
    """A picture in the making; `recording` opens one."""

    system: System
    request: Request
    _levels: list[tuple[float, float]] = field(default_factory=list)
    _x0: list[Tensor] = field(default_factory=list)
    _guidance: list[Tensor | None] = field(default_factory=list)
    _attention: list[dict[Size, Tensor]] = field(default_factory=list)
    _seen: dict[int, list[Tensor]] = field(default_factory=dict)  # places -> (P, L) of this step
    _pushes: list[Tensor | None] = field(default_factory=list)  # of this step's calls
    _done: tuple[Tensor, Image] | None = None

    def __post_init__(self) -> None:
        self._job = self.system.job([generate.alone(self.request, 0)])

    def steps(self) -> Iterator[Progress]:
        """The picture step by step, as the system's `stream` yields it."""
        for step in generate.steps(self._job):
            self._note(self._job.grid, step.i, step.x0)
            (progress,) = generate.progress(self._job, step)
            if progress.result is not None:
                self._done = (_kept(step.x[0]), progress.result)
            yield progress

    def explanation(self) -> Explanation:
        """What was seen, once all steps are done. Raises SuffuseError before."""
        if self._done is None:
            raise SuffuseError("the picture is not finished: go through all of its steps first")
        alpha, sigma = torch.tensor(self._levels, dtype=torch.float64).unbind(1)
        latent, picture = self._done
        sizes = self._attention[0]
        job = self._job
        return Explanation(
            self.request,
            _words(self.system, self.request) if sizes else (),
            kind_of(self.system),
            alpha,
            sigma,
            torch.stack(self._x0),
            tuple(self._guidance),
            {size: torch.stack([step[size] for step in self._attention]) for size in sizes},
            latent if isinstance(self.system, LatentDiffusion) else None,
            picture,
            lambda x: job.picture(0, x.to(job.device)),
        )

    def see_attention(self, shares: Tensor) -> None:
        """(P, L) of one layer."""
        self._seen.setdefault(len(shares), []).append(_kept(shares))

    def see_answer(self, x: Tensor, answer: Tensor) -> None:
        """What the network was given, and what it said: under guidance of twice as many rows."""
        push = None
        if len(answer) == 2 * len(x):
            without, with_prompt = answer[:, : x.shape[1]].chunk(2)  # a learned variance left out
            push = _kept(with_prompt[0].float() - without[0].float())
        self._pushes.append(push)

    def _note(self, grid: Grid, i: int, x0: Tensor) -> None:
        """Closes a step."""
        level = grid.level(i)
        self._levels.append((float(level.alpha), float(level.sigma)))
        self._x0.append(_kept(x0[0]))
        # Samplers that ask twice a step ask first at the level where it begins.
        self._guidance.append(self._pushes[0] if self._pushes else None)
        sizes = {h * w: (h, w) for h, w in halvings(self._job.shape[1:])}
        self._attention.append(
            {sizes[p]: _folded(torch.stack(s), sizes[p]) for p, s in sorted(self._seen.items())}
        )
        self._pushes, self._seen = [], {}


@contextmanager
def recording(system: System, request: Request) -> Iterator[Recording]:
    """Watches the network while the picture of a request is made, which `Recording.steps` does.

    Raises SuffuseError as `resolve` does, and for more than one picture.
    """
    if request.n != 1:
        raise SuffuseError(f"one picture is explained at a time: n must be 1, not {request.n}")
    if request.best_of is not None:
        raise SuffuseError("one picture is explained, none is chosen: leave best_of out")
    if isinstance(system, UnCLIP):
        raise SuffuseError(f"{system.info.name} is several networks in a row: one can be explained")
    system = suited(system, request)
    found = Recording(system, system.resolve(request))
    net = network(system)
    with watch_attention(net, found.see_attention), watch_output(net, found.see_answer):
        yield found


def explain(system: System, request: Request) -> Explanation:
    """Makes the one picture of a request and tells how. Raises SuffuseError as `recording` does."""
    with recording(system, request) as found:
        for _ in found.steps():
            pass
        return found.explanation()


def most_bytes(system: System, request: Request) -> int:
    """About what the attention takes while a resolved request is watched, at most."""
    if not isinstance(system, LatentDiffusion):
        return 0
    assert request.width and request.height and request.steps
    cells = (request.width * request.height) // system.parts.autoencoder.config.factor**2
    tokens = system.windows(request) * system.parts.tokenizer.window
    # In float32, kept of each step, and each size a quarter of the last one; while a layer is
    # looked at, all of its heads, which some have 8 of, before and after the softmax.
    return 4 * max(request.steps, 16) * tokens * cells * 4 // 3


def network(system: System) -> nn.Module:
    """The one that denoises."""
    assert not isinstance(system, UnCLIP)  # it has several
    return system.parts.unet if isinstance(system, LatentDiffusion) else system.unet


def kind_of(system: System) -> str:
    """What its network predicts."""
    if isinstance(system, LatentDiffusion):
        return system.parts.sampling.kind
    return system.kind if isinstance(system, ScoreSDE) else system.sampling.kind


def halvings(size: tuple[int, ...]) -> list[Size]:
    """The sizes to which a U-Net halves one, itself first: odd sides are rounded up."""
    found = [(size[0], size[1])]
    while found[-1] != (1, 1):
        found.append((-(-found[-1][0] // 2), -(-found[-1][1] // 2)))
    return found


def _words(system: System, request: Request) -> tuple[Word, ...]:
    """The prompt's words by their places in the windows, then what is no word."""
    assert isinstance(system, LatentDiffusion)
    tokenizer = system.parts.tokenizer
    windows, size = system.windows(request), tokenizer.window
    spans, room = tokenizer.spans(request.prompt), size - 2
    place = [i // room * size + 1 + i % room for i in range(len(spans))]
    found = [
        Word(word.text, tuple(place[i] for i in word.tokens))
        for word in words(request.prompt, spans)
    ]
    starts = [window * size for window in range(windows)]
    filled = [min(max(len(spans) - window * room, 0), room) for window in range(windows)]
    ends = [start + 1 + count for start, count in zip(starts, filled)]
    rest = set(range(windows * size)) - {*place, *starts, *ends}
    others = ((START, starts), (END, ends), (PADDING, sorted(rest)))
    return (*found, *(Word(name, tuple(tokens)) for name, tokens in others if tokens))


def _folded(layers: Tensor, size: Size) -> Tensor:
    """(layers, P, L) -> their mean, (L, height, width)."""
    return layers.mean(0).T.unflatten(1, size)


def _kept(x: Tensor) -> Tensor:
    return x.detach().to("cpu", torch.float32, copy=True)
