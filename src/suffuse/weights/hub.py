"""Models by their Hugging Face Hub name, through that library's own cache.

A repository often holds the same weights four times (fp32, fp16, pickled, ONNX); only one set is
fetched. `huggingface_hub` is imported when a name is resolved, and it decides where the cache is
(`HF_HOME`), who may see what (`HF_TOKEN`) and whether to go online (`HF_HUB_OFFLINE`).
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable
from pathlib import Path

from suffuse.errors import SuffuseError
from suffuse.weights.containers import choose_weights, is_index

_NAME = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(?P<file>(/\w[\w. -]*)+\.\w+)?", re.ASCII)
_FILE = re.compile(r".*\.(safetensors|ckpt|pt|pth|bin|json)")
_SMALL = (".json", ".txt", ".model")  # configurations, vocabularies, sentencepiece models
_SINGLE = (".safetensors", ".ckpt")
_UNUSED = {"safety_checker", "image_encoder_safety"}


def is_hub_name(name: str) -> bool:
    """Whether `name` has the form org/name or org/name/file.safetensors; nothing is looked up.

    folder/file.safetensors has not: it is a path, and mistyped if there is no such file.
    """
    match = _NAME.fullmatch(name)
    return match is not None and _FILE.fullmatch(match["repo"]) is None


def fetch(name: str, variant: str | None = None, revision: str | None = None) -> Path:
    """The local folder of the model `org/name`, or the file `org/name/file.safetensors`.

    Downloads what is missing from the cache; offline, or when the Hub does not answer, the cached
    copy is used. `variant` prefers those weights ("fp16"). Raises SuffuseError in one line when
    there is neither.
    """
    match = _NAME.fullmatch(name)
    if match is None or not is_hub_name(name):
        raise SuffuseError(f"'{name}' is neither a path that exists nor a Hub name like org/name")
    repo, file = match["repo"], match["file"]
    if file is not None:
        return _fetch_file(repo, file[1:], revision)
    files, problem = _listing(repo, revision)
    if files is None:
        return _cached(repo, revision, problem)
    wanted = needed_files(files, variant)
    if not wanted:
        raise SuffuseError(f"{repo}: this Hub repository holds no weights that can be opened")
    from huggingface_hub import snapshot_download

    patterns = [glob.escape(f) for f in wanted]
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except Exception as error:
        raise SuffuseError(f"{repo}: the download stopped ({_brief(error)}); try again") from error


def needed_files(files: Iterable[str], variant: str | None = None) -> list[str]:
    """Of a repository's files, those that opening it takes: configurations, vocabularies, and one
    set of weights a folder. Raises SuffuseError when several single-file models are offered."""
    folders: dict[str, list[str]] = {}
    for file in files:
        folder, _, base = file.rpartition("/")
        deep = "/" in folder and not folder.startswith("upsamplers/")  # those of an unCLIP of ours
        if not deep and folder not in _UNUSED:
            folders.setdefault(folder, []).append(base)
    whole = "model_index.json" in folders.get("", [])
    wanted: list[str] = []
    for folder, names in sorted(folders.items()):
        chosen = [n for n in names if n.endswith(_SMALL) and not is_index(Path(n))]
        if folder or not whole:  # beside a pipeline's folders lie copies of it in one file
            chosen += _weights(names, variant) or ([] if folder else _single(names))
        elif "image_projection" in folders:  # an unCLIP of ours: what changes its base is no copy
            chosen += [n for n in names if n == "pytorch_lora_weights.safetensors"]
        wanted += [f"{folder}/{n}" if folder else n for n in sorted(chosen)]
    return wanted if any(not f.endswith(_SMALL) for f in wanted) else []


def _weights(names: list[str], variant: str | None) -> list[str]:
    """The preferred weights among the files of one folder, shards with their index."""
    chosen = choose_weights(names, variant=variant)
    if chosen is None and variant is not None:  # the other components may have no such variant
        chosen = choose_weights(names)
    if chosen is None or not is_index(Path(chosen)):
        return [chosen] if chosen else []
    stem, *middle = chosen.removesuffix(".json").split(".")
    suffix = "bin" if "bin" in middle else "safetensors"
    infix = [m for m in middle if m not in (suffix, "index")]
    prefix = re.escape(".".join([stem, *infix]))
    shard = re.compile(rf"{prefix}-\d+-of-\d+\.{suffix}")
    return [chosen, *(n for n in names if shard.fullmatch(n))]


def _single(names: list[str]) -> list[str]:
    """The one single-file checkpoint of a repository that is no folder of components."""
    for suffix in _SINGLE:
        found = sorted(n for n in names if n.endswith(suffix))
        if len(found) > 1:
            raise SuffuseError(
                f"this Hub repository holds several checkpoints ({', '.join(found[:6])}); "
                "name one of them: org/name/file"
            )
        if found:
            return found
    return []


def _listing(repo: str, revision: str | None) -> tuple[list[str] | None, Exception | None]:
    """The repository's file names, or None and why they cannot be had."""
    from huggingface_hub import HfApi

    try:
        found = HfApi().model_info(repo, revision=revision).siblings or []
    except Exception as error:  # the transport's errors have changed with every major version
        return None, error
    return [f.rfilename for f in found], None


def _cached(repo: str, revision: str | None, problem: Exception | None) -> Path:
    """The cached copy, if it is whole."""
    from huggingface_hub import snapshot_download

    try:
        # The pattern keeps the library from missing files that were left out on purpose.
        folder = Path(
            snapshot_download(
                repo, revision=revision, local_files_only=True, allow_patterns="model_index.json"
            )
        )
    except Exception:
        raise SuffuseError(f"{repo}: {_why(problem)}, and it is not in the cache") from problem
    present = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    lacking = [p.parent for p in folder.glob("*/config.json") if p.parent.name not in _UNUSED]
    lacking = [p for p in lacking if not _weights([f.name for f in p.iterdir()], None)]
    if lacking or not needed_files(present):
        what = lacking[0].name if lacking else "model"
        raise SuffuseError(
            f"{repo}: {_why(problem)}, and the cached copy has no weights for its {what}"
        ) from problem
    return folder


def _fetch_file(repo: str, file: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, file, revision=revision))
    except Exception as error:
        raise SuffuseError(f"{repo}/{file}: {_why(error)}, and it is not in the cache") from error


def _why(problem: Exception | None) -> str:
    """What kept the Hub from answering, in words."""
    from huggingface_hub import utils

    if isinstance(problem, (utils.OfflineModeIsEnabled, utils.LocalEntryNotFoundError)):
        return "working offline (HF_HUB_OFFLINE is set or there is no connection)"
    if isinstance(problem, utils.GatedRepoError):
        return "its owner asks for a licence to be accepted on the Hub (log in and set HF_TOKEN)"
    if isinstance(problem, utils.RevisionNotFoundError):
        return "the Hub has no such revision of it"
    if isinstance(problem, utils.RepositoryNotFoundError):
        return "the Hub knows no such public model (a private one needs HF_TOKEN)"
    if isinstance(problem, utils.EntryNotFoundError):
        return "the Hub has no such file in it"
    return f"the Hub could not be reached ({_brief(problem)})"


def _brief(problem: Exception | None) -> str:
    text = (str(problem).strip() or type(problem).__name__).splitlines()[0]
    return text[:160]
