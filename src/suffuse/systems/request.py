"""What to generate, in one list of fields: `Request`.

Command-line flags, Python arguments, HTTP fields and the metadata stored in a picture are these
fields, with these names and these defaults. Nothing here imports torch, so a request can be built,
refused or written down before anything heavy starts.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, NamedTuple

from suffuse.errors import SuffuseError
from suffuse.systems import additions
from suffuse.systems.boxes import Box, boxes
from suffuse.systems.checks import interval, number, text, whole

if TYPE_CHECKING:
    from PIL.Image import Image

    Picture = str | PathLike[str] | Image

# The words of `diffusion.grid.NAMES`, which importing would bring torch.
GRIDS = ("leading", "trailing", "linspace", "karras", "exponential", "polyexponential", "beta")
LARGEST_SEED = 2**63 - 1
PICTURES = ("image", "mask")  # the fields that hold one
# Fields that the pictures of one batch have each for themselves, see `systems.together`.
OWN = ("prompt", "negative", "guidance", "seed", "n", "best_of", *PICTURES)


class Progress(NamedTuple):
    """One step of one image, as `stream` yields it.

    `preview()` decodes the current estimate of the finished picture; it costs a decoder pass, so
    it runs only when called. `result` is set on the last item of each image.
    """

    image_index: int  # which of the request's n images, or of the best_of that are drawn
    i: int  # step, from 0
    steps: int  # steps in total
    preview: Callable[[], Image]
    result: Image | None
    seed: int  # this image's own: the request's seed + image_index


@dataclass(frozen=True)
class Request:
    """A generation. `None` means the model's own default.

    Construction checks every value that can be judged alone and raises `SuffuseError`;
    `check()` judges what needs the sampler table or the picture files.
    """

    prompt: str = ""  # only models without words, or with classes, draw unasked
    negative: str = ""
    steps: int | None = None
    guidance: float | None = None  # classifier-free guidance scale; 1 = none
    rescale: float = 0.0  # guidance rescale phi in [0, 1], arXiv:2305.08891 section 3.4
    sampler: str | None = None
    grid: str | None = None  # one of GRIDS
    eta: float | None = None  # share of fresh noise at each step, for samplers that take it
    seed: int | None = None  # image i uses seed + i; None or -1 = random
    n: int = 1
    width: int | None = None  # pixels
    height: int | None = None  # pixels
    image: Picture | None = None  # start from this picture instead of from noise
    mask: Picture | None = None  # white = repaint; needs `image`
    strength: float = 0.8  # how much of the way back to noise `image` goes, in (0, 1]
    clip_skip: int = 0  # layers of the text encoder left out at its end, counted from 0
    # FILE or FILE:SCALE, merged into the model; None = those it was opened with
    loras: tuple[additions.LoraFile, ...] | None = None
    embeddings: tuple[str, ...] | None = None  # files of learned words; None as above
    respacing: str | None = None  # the steps of "250", "ddim25" or "10,15,20", without a grid
    # Levels of noise, sigma / alpha, between which guidance acts: arXiv:2404.07724, section 3
    guidance_interval: tuple[float, float] | None = None
    classifier: str | None = None  # file or folder of one of noisy pictures, to guide by as well
    classifier_scale: float = 1.0  # of its gradient; 0 = none, 1 = Bayes' rule
    boxes: tuple[Box, ...] | None = None  # what is to stand where, for grounded models
    best_of: int | None = None  # draw so many, and keep the n that CLIP finds nearest to the prompt

    def __post_init__(self) -> None:
        put = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731  (frozen)
        text("prompt", self.prompt)
        text("negative", self.negative)
        for name, least in (("steps", 1), ("n", 1), ("width", 1), ("height", 1), ("clip_skip", 0)):
            put(name, whole(name, getattr(self, name), least, optional=name not in _NEVER_NONE))
        put("guidance", number("guidance", self.guidance, 0.0, optional=True))
        put("eta", number("eta", self.eta, 0.0, optional=True))
        put("rescale", number("rescale", self.rescale, 0.0, 1.0))
        put("guidance_interval", interval("guidance_interval", self.guidance_interval))
        put("classifier", additions.classifier(self.classifier))
        put("classifier_scale", number("classifier_scale", self.classifier_scale, 0.0))
        put("boxes", boxes(self.boxes))
        put("strength", number("strength", self.strength, 0.0, 1.0))
        if self.strength == 0:
            raise SuffuseError("strength must be above 0 and at most 1, not 0")
        put("best_of", _best_of(self.best_of, self.n, self.prompt))
        put("seed", _seed(self.seed, self.drawn))
        if self.sampler is not None:
            text("sampler", self.sampler)
        if self.grid is not None and self.grid not in GRIDS:
            raise SuffuseError(f"unknown grid {self.grid!r}: choose one of {', '.join(GRIDS)}")
        if self.respacing is not None:
            text("respacing", self.respacing)
            if self.grid is not None:
                raise SuffuseError("respacing and grid both say which steps to take: give one")
        for name in PICTURES:
            check_picture(name, getattr(self, name))
        for name, one in _ADDITIONS.items():
            if (given := getattr(self, name)) is not None:
                put(name, tuple(map(one, additions.listed(name, given))))
        if self.mask is not None and self.image is None:
            raise SuffuseError("a mask needs an image to repaint: give image as well")

    @property
    def drawn(self) -> int:
        """How many pictures are drawn, of which n are kept."""
        return self.best_of or self.n

    def check(self) -> Request:
        """Judge the sampler's name, pictures and other files too; returns the request itself.

        Raises SuffuseError for an unknown sampler, a missing file, an unreadable picture, and a
        mask of another size than the image.
        """
        if self.sampler is not None:
            from suffuse.diffusion.sampler_names import resolve

            resolve(self.sampler)
        for lora in self.loras or ():
            additions.check_file(lora.path, "LoRA")
        for embedding in self.embeddings or ():
            additions.check_file(embedding, "embedding")
        if self.classifier is not None:
            additions.check_file(self.classifier, "classifier")
        self.pictures()
        return self

    def resolve(
        self,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        sampler: str | None = None,
        grid: str | None = None,
        eta: float | None = None,
        width: int | None = None,
        height: int | None = None,
    ) -> Request:
        """The request as it will run: a model's defaults where it says None, and a definite seed.

        A random seed lies in [0, 2**32), the range other programs accept too.
        """
        return replace(
            self,
            steps=steps if self.steps is None else self.steps,
            guidance=guidance if self.guidance is None else self.guidance,
            sampler=sampler if self.sampler is None else self.sampler,
            grid=grid if self.grid is None else self.grid,
            eta=eta if self.eta is None else self.eta,
            width=width if self.width is None else self.width,
            height=height if self.height is None else self.height,
            seed=secrets.randbelow(2**32) if self.seed is None else self.seed,
        )

    def pictures(self) -> tuple[Image | None, Image | None]:
        """The image (RGB) and the mask (L, white = repaint), opened, upright and of one size."""
        image = None if self.image is None else open_picture(self.image, "image", "RGB")
        mask = None if self.mask is None else open_picture(self.mask, "mask", "L")
        if image is not None and mask is not None and image.size != mask.size:
            raise SuffuseError(
                f"the mask is {_size(mask)} pixels and the image {_size(image)}: "
                "they must have the same size"
            )
        return image, mask

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json` can write. Files become their path and SHA-256."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in PICTURES:
            if found[name] is not None:
                found[name] = fingerprint(found[name])
        if self.loras is not None:
            known = [additions.fingerprint(path) | {"scale": scale} for path, scale in self.loras]
            found["loras"] = known
        if self.embeddings is not None:
            found["embeddings"] = [additions.fingerprint(path) for path in self.embeddings]
        if self.classifier is not None:
            found["classifier"] = additions.fingerprint(self.classifier)
        if self.boxes is not None:
            found["boxes"] = [list(box) for box in self.boxes]
        return found

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Request:
        """The reverse of `to_json`, strict about names.

        A picture is looked up under its path and must still have its SHA-256; one that was only
        in memory cannot come back. Raises SuffuseError.
        """
        known = [f.name for f in fields(cls)]
        for name in data:
            if name not in known:
                raise SuffuseError(f"unknown field {name!r}: a request has {', '.join(known)}")
        if "prompt" not in data:
            raise SuffuseError("the request has no prompt")
        values = dict(data)
        for name in PICTURES:
            if values.get(name) is not None:
                values[name] = find_picture(values[name], name)
        return cls(**values)


_NEVER_NONE = ("n", "clip_skip")
_ADDITIONS: dict[str, Callable[[Any], Any]] = {
    "loras": additions.lora,
    "embeddings": additions.embedding,
}


def open_picture(source: Picture, role: str, mode: str) -> Image:
    """Open a path or take a PIL image; upright as its EXIF says, transparent parts over white.

    `mode` is the PIL mode of the answer ("RGB" or "L"); `role` names the picture in errors.
    """
    from suffuse.data.decode import to_rgb

    return to_rgb(open_upright(source, role)).convert(mode)


def open_upright(source: Picture, role: str) -> Image:
    """The same, with the mode and the transparency that it has."""
    from PIL import Image, ImageOps

    from suffuse.data.decode import reason

    opened: Image.Image
    if isinstance(source, Image.Image):
        opened = source
    else:
        try:
            with Image.open(source) as file:
                file.load()
                opened = file
        except FileNotFoundError:
            raise SuffuseError(f"there is no {role} file '{fspath(source)}'") from None
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            why = "it is a folder" if isinstance(error, IsADirectoryError) else reason(error)
            why = "no permission" if isinstance(error, PermissionError) else why
            raise SuffuseError(f"cannot open the {role} '{fspath(source)}': {why}") from error
    return ImageOps.exif_transpose(opened)


def picture_hash(source: Picture) -> str:
    """SHA-256 in hex: of a file's bytes, or of an in-memory picture's mode, size and pixels."""
    from PIL import Image

    if isinstance(source, Image.Image):
        head = f"{source.mode} {source.width} {source.height}\n".encode()
        return hashlib.sha256(head + source.tobytes()).hexdigest()
    try:
        with open(source, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError as error:
        why = error.strerror
        raise SuffuseError(f"cannot read the picture '{fspath(source)}': {why}") from None


def fingerprint(source: Picture) -> dict[str, str]:
    """A picture as it is recorded: its SHA-256, and its path if it is a file."""
    from PIL import Image

    digest = picture_hash(source)
    if isinstance(source, Image.Image):
        return {"sha256": digest}
    return {"path": fspath(source), "sha256": digest}


def find_picture(value: Any, role: str) -> Any:
    """The path of a recorded picture, whose file has not changed since. Raises SuffuseError."""
    if not isinstance(value, Mapping):
        return value
    if not isinstance(value.get("path"), str):
        raise SuffuseError(f"the {role} existed only in memory and is not recorded: give it again")
    path, digest = value["path"], value.get("sha256")
    if digest is not None and picture_hash(path) != digest:
        raise SuffuseError(f"the {role} '{path}' has changed since it was used: give it again")
    return path


def _size(image: Image) -> str:
    return f"{image.width}x{image.height}"


def check_picture(name: str, value: Any) -> None:
    if value is None or isinstance(value, (str, PathLike)):
        return
    from PIL.Image import Image

    if not isinstance(value, Image):
        raise SuffuseError(f"{name} must be a path or a picture, not {value!r}")


def _best_of(value: Any, n: int, prompt: str) -> int | None:
    best_of = whole("best_of", value, 1, optional=True)
    if best_of is not None and best_of < n:
        raise SuffuseError(f"best_of is how many are drawn to keep {n}: it cannot be {best_of}")
    if best_of is not None and not prompt.strip():
        raise SuffuseError("best_of keeps what is nearest to the prompt: give a prompt")
    return best_of


def _seed(value: Any, n: int) -> int | None:
    if value is None or value == -1:
        return None
    seed = whole("seed", value, -1, optional=False)
    if seed is not None and seed + n - 1 > LARGEST_SEED:
        raise SuffuseError(
            f"seed must be at most {LARGEST_SEED}: the last of {n} images would use {seed + n - 1}"
        )
    return seed
