"""What a picture file says about how it was made, and writing such files safely.

A PNG of ours carries two text chunks: `parameters`, which other programs read (see `infotext`),
and `suffuse`, the whole Request as JSON with the model and the version, from which the picture can
be made again exactly. JPEG and WebP files carry the first in EXIF's UserComment.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import suffuse
from suffuse.errors import SuffuseError
from suffuse.systems import infotext
from suffuse.systems.infotext import Parameters
from suffuse.systems.request import Request

if TYPE_CHECKING:
    from PIL.Image import Image

    from suffuse.systems.manipulation import Manipulation

FRAME = 150  # milliseconds that a frame of an animation is shown
_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286


@dataclass(frozen=True)
class Origin:
    """The model that made a picture.

    `source` is what `suffuse.load` was given (None = the bundled model) and `dtype` the one it
    ran in, so that the same can be asked for again.
    """

    name: str | None = None
    source: str | None = None
    hash: str | None = None
    dtype: str | None = None

    def unlike(self, other: Origin) -> str | None:
        """A line where `other`, which is to repeat a picture of this model, is another one.

        Hashes may be their first ten digits, which is what the web UI writes.
        """
        if not self.hash or (other.hash or "").startswith(self.hash):
            return None
        return f"{other.name} is not the model of that picture ({self.name}): it will differ"


@dataclass(frozen=True)
class Metadata:
    """What is stored in a picture. Of `request` and `manipulation` it has one, or none where
    another program made it."""

    parameters: Parameters
    request: Mapping[str, Any] | None = None  # as Request.to_json gives it
    origin: Origin | None = None
    version: str | None = None
    manipulation: Mapping[str, Any] | None = None  # as Manipulation.to_json gives it

    def for_image(self, seed: int, size: tuple[int, int]) -> Metadata:
        """The metadata of one picture of a batch: its own seed, n = 1, its size in pixels.

        One that was kept of many says no more of these: its seed alone makes it again.
        """
        width, height = size
        shown = dict(self.parameters.fields) | {"Seed": str(seed), "Size": f"{width}x{height}"}
        own = {"seed": seed, "n": 1, "best_of": None}
        request = None if self.request is None else {**self.request, **own}
        return replace(self, parameters=replace(self.parameters, fields=shown), request=request)

    def chunks(self) -> dict[str, str]:
        """The PNG text chunks, by keyword."""
        found = {"parameters": infotext.write(self.parameters)}
        made = {"request": self.request, "manipulation": self.manipulation}
        made = {key: value for key, value in made.items() if value is not None}
        if made:
            model = None if self.origin is None else asdict(self.origin)
            body = {"version": self.version, **made, "model": model}
            found["suffuse"] = json.dumps(body, ensure_ascii=False)
        return found

    def to_request(self, changes: Mapping[str, Any] | None = None) -> Request:
        """The request that makes this picture again, with `changes` to its fields.

        Raises SuffuseError where something stored cannot be used, unless it is changed anyway.
        """
        changes = dict(changes or {})
        if self.manipulation is not None:
            raise SuffuseError(f"this picture was made by `suffuse {self.manipulation['kind']}`")
        if self.request is not None:
            return Request.from_json({**self.request, **changes})
        values = infotext.request_values(self.parameters)
        if changes.get("image") is None and "strength" in values:
            if not any(key.startswith("Hires") for key in self.parameters.fields):
                raise SuffuseError("this picture was made from another one: give that as image")
            del values["strength"]  # of the web UI's second, enlarging pass
        return Request(**{**values, **changes})


def describe(request: Request, origin: Origin) -> Metadata:
    """The metadata of a resolved request, before it runs; hashes its pictures once."""
    data = request.to_json()
    pictures = {name: data[name]["sha256"] for name in ("image", "mask") if data[name]}
    shown = infotext.describe(request, origin.name, origin.hash, pictures)
    fields = {**shown.fields, "Version": f"suffuse {suffuse.__version__}"}
    return Metadata(replace(shown, fields=fields), data, origin, suffuse.__version__)


def describe_manipulation(asked: Manipulation, origin: Origin) -> Metadata:
    """The metadata of a resolved manipulation; hashes its pictures once."""
    data = asked.to_json()
    values = {"Steps": asked.how.steps, "Sampler": "DDIM", "CFG scale": asked.how.guidance}
    values |= {"Seed": asked.seed, "Eta": asked.eta if asked.kind == "vary" else None}
    values |= {"Model hash": origin.hash and origin.hash[:10], "Model": origin.name}
    values |= {"Init image hash": data["image"]["sha256"][:10], "Manipulation": asked.kind}
    values |= {"Version": f"suffuse {suffuse.__version__}"}
    fields = {name: f"{value}" for name, value in values.items() if value is not None}
    shown = Parameters(asked.after, fields=fields)
    return Metadata(shown, origin=origin, version=suffuse.__version__, manipulation=data)


def read_parameters(path: str | PathLike[str]) -> Metadata:
    """What a PNG, JPEG or WebP file says about its making; raises SuffuseError if it says nothing.

    The pixels are not decoded.
    """
    from PIL import Image

    name = fspath(path)
    try:
        with Image.open(path) as image:
            texts = stored_text(image)
    except FileNotFoundError:
        raise SuffuseError(f"there is no file '{name}'") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SuffuseError(f"'{name}' is not a picture that can be opened") from error
    if "suffuse" in texts:
        return _ours(name, texts)
    if "parameters" in texts:
        shown = infotext.parse(texts["parameters"])
        named = Origin(shown.fields.get("Model"), hash=shown.fields.get("Model hash"))
        return Metadata(shown, origin=named)
    for key, program in (("workflow", "ComfyUI"), ("invokeai_metadata", "InvokeAI")):
        if key in texts:
            raise SuffuseError(f"'{name}' was made by {program}, whose record is not read")
    raise SuffuseError(f"'{name}' carries no generation parameters: nothing says how it was made")


def _ours(name: str, texts: Mapping[str, str]) -> Metadata:
    try:
        body = json.loads(texts["suffuse"])
        model, version, manipulation = (body.get(n) for n in ("model", "version", "manipulation"))
        if manipulation is None:
            said = request = body["request"]
        else:  # has no prompt; both of these must be there
            said, request = {"prompt": manipulation["after"], "kind": manipulation["kind"]}, None
        prompt, negative = str(said["prompt"]), str(said.get("negative", ""))
        origin = None if model is None else Origin(**model)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SuffuseError(f"the record in '{name}' is damaged: {error}") from error
    shown = Parameters(prompt, negative)
    if "parameters" in texts:
        # Our own record has the prompts to the letter; the text may split a prompt (see infotext).
        shown = replace(shown, fields=infotext.parse(texts["parameters"]).fields)
    return Metadata(shown, request, origin, version, manipulation)


def stored_text(image: Image) -> dict[str, str]:
    """Text by keyword, wherever the file's format keeps it."""
    text = getattr(image, "text", None)  # only PNG images have it, also for chunks after the pixels
    if text is not None:
        return {key: str(value) for key, value in text.items()}
    comment = image.getexif().get_ifd(_EXIF_IFD).get(_USER_COMMENT)
    if not comment:
        return {}
    return {"parameters": comment if isinstance(comment, str) else decode_comment(comment)}


def decode_comment(comment: bytes) -> str:
    """EXIF UserComment: eight bytes name the encoding. Byte order is often not what it should be.

    The standard wants the file's own order and programs write either, so the order is judged by
    where the zero bytes of Latin characters stand.
    """
    head, body = comment[:8], comment[8:]
    if head == b"UNICODE\0":
        order = "utf-16-le" if body[1::2].count(0) > body[::2].count(0) else "utf-16-be"
        order = "utf-16" if body[:2] in (b"\xff\xfe", b"\xfe\xff") else order
        return body.decode(order, "replace")
    plain = body if head in (b"ASCII\0\0\0", bytes(8)) else comment
    return plain.decode("utf-8", "replace").rstrip("\0")


def write_png(
    image: Image,
    path: str | PathLike[str],
    metadata: Metadata | None = None,
    *,
    frames: Sequence[Image] = (),
    overwrite: bool = False,
) -> None:
    """Write a PNG, with `frames` an animation, so that there is ever the whole file or none.

    Written under a temporary name in the same folder, flushed to the disk, then renamed. Raises
    FileExistsError when `path` exists and `overwrite` is not set, SuffuseError when it cannot be
    written.
    """
    path = Path(path)
    try:
        write_bytes(png_bytes(image, metadata, frames=frames), path, overwrite=overwrite)
    except FileExistsError:
        raise
    except OSError as error:
        raise SuffuseError(f"cannot write '{path}': {error.strerror or error}") from error


def png_bytes(
    image: Image,
    metadata: Metadata | None = None,
    *,
    level: int = 6,
    frames: Sequence[Image] = (),
) -> bytes:
    """The PNG file of a picture, with its text chunks; `level` is zlib's, 1 = quick."""
    from PIL.PngImagePlugin import PngInfo

    info, file = PngInfo(), io.BytesIO()
    for key, value in (metadata.chunks() if metadata else {}).items():
        info.add_text(key, value)
    moving = {"save_all": True, "append_images": list(frames), "duration": FRAME, "loop": 0}
    image.save(file, "PNG", pnginfo=info, compress_level=level, **(moving if frames else {}))
    return file.getvalue()


def data_url(png: bytes) -> str:
    """A PNG file as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def write_bytes(content: bytes, path: Path, *, overwrite: bool = False) -> None:
    """A file that is there as a whole or not at all; see `write_png`. Raises OSError."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        # Not tempfile, whose files nobody but their owner may read.
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _move(temporary, path, overwrite)
    finally:
        temporary.unlink(missing_ok=True)


def _move(temporary: Path, path: Path, overwrite: bool) -> None:
    if overwrite:
        os.replace(temporary, path)
        return
    try:
        os.link(temporary, path)  # unlike a rename, refuses an existing name
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: claim the name first
        open(path, "xb").close()
        os.replace(temporary, path)


def file_name(number: int, seed: int, prompt: str) -> str:
    """`00001-7-a-red-apple.png`: number, seed, the prompt's letters and digits of any script."""
    words = re.sub(r"[\W_]+", "-", prompt.lower())[:60].strip("-")
    while len(words.encode()) > 160:  # file systems count bytes, 255 at most
        words = words[:-1]
    return f"{number:05d}-{seed}-{words}.png" if words else f"{number:05d}-{seed}.png"


def next_number(folder: Path) -> int:
    """One more than the highest number that begins a file's name in `folder`."""
    names = (re.match(r"(\d{5,})-", entry.name) for entry in folder.iterdir())
    return max((int(found[1]) for found in names if found), default=0) + 1
