"""Opens what pictures come in: a folder, parquet, WebDataset tars, a saved data set, the Hub.

All but plain folders are read by the `datasets` library. It is asked for undecoded pictures: which
of them are broken is for us to see.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suffuse.data.folder import FolderStream
from suffuse.data.listing import is_picture, list_files, list_pictures
from suffuse.data.preprocess import Preprocess
from suffuse.data.sequence import Sequence, SequenceStream
from suffuse.data.table import Columns, Table
from suffuse.errors import SuffuseError

_HUB_NAME = re.compile(r"^(hub:)?(?P<name>[\w.-]+/[\w.-]+)(:(?P<config>[\w.-]+))?$")
_ARCHIVES = {".tar": "webdataset", ".parquet": "parquet"}


@dataclass(frozen=True)
class Source:
    """Pictures somewhere.

    where: a folder, a .tar or .parquet file, or owner/name (owner/name:config) on the Hub
    image, caption: the columns to take, where they are not named as usual
    split: of a data set that has several
    """

    where: str
    image: str | None = None
    caption: str | None = None
    split: str = "train"

    def table(self) -> Table:
        """Pictures by number. What is not a folder of pictures is copied to the cache of `datasets`
        once (HF_HOME says where). Raises SuffuseError."""
        path = Path(self.where)
        files = self._files(path)
        if any(map(is_picture, files)):
            return Table.of_folder(list_pictures(path, files, self.caption))
        rows = self._load(path, files, streaming=False)
        columns = Columns.find(rows.features, self.image, self.caption, f"'{self.where}'")
        rows = _undecoded(rows, columns.image)
        return Table(rows, columns, f"'{self.where}'", f"{self.where} {rows._fingerprint}")

    def sequence(self) -> Sequence:
        """Pictures one after the other, read where they are. Raises SuffuseError."""
        path = Path(self.where)
        files = self._files(path)
        if any(map(is_picture, files)):
            raise SuffuseError(f"'{path}' holds plain pictures: these are picked, not streamed")
        rows = self._load(path, files, streaming=True)
        features = rows.features
        if features is None:  # a Hub data set that says nothing about itself
            features = dict.fromkeys(next(iter(rows), {}))
        columns = Columns.find(features, self.image, self.caption, f"'{self.where}'")
        return Sequence(_undecoded(rows, columns.image), columns, f"'{self.where}'")

    def _files(self, path: Path) -> list[str]:
        """What is in the folder; nothing for all else. Raises SuffuseError."""
        if path.is_dir():
            files = list_files(path)
            if not _saved(path) and not any(_useful(name) for name in files):
                raise SuffuseError(f"'{path}' holds no pictures, no .parquet and no .tar files")
            return files
        if path.is_file():
            if path.suffix.lower() not in _ARCHIVES:
                raise SuffuseError(f"'{path}' is neither a folder nor a .parquet or .tar file")
        elif not _HUB_NAME.match(self.where):
            raise SuffuseError(
                f"there is no folder or file '{path}' (a Hub data set is named owner/name)"
            )
        return []

    def _load(self, path: Path, files: list[str], streaming: bool) -> Any:
        try:
            import datasets
        except ImportError:
            raise SuffuseError(
                "reading data sets needs the datasets library: pip install 'suffuse[train]'"
            ) from None
        if not sys.stderr.isatty():
            datasets.disable_progress_bars()
        if path.is_dir() and _saved(path):
            return self._guarded(lambda: self._saved_set(path, streaming))
        if path.exists():
            chosen = self._chosen(path, files)
            kind = _ARCHIVES[Path(chosen[0]).suffix.lower()]
            options: dict[str, Any] = {"data_files": {"train": chosen}, "split": "train"}
            if kind == "webdataset":
                options["features"] = self._guarded(lambda: _tar_features(chosen))
            return self._guarded(
                lambda: datasets.load_dataset(kind, streaming=streaming, **options)
            )
        match = _HUB_NAME.match(self.where)
        assert match is not None  # `_files` saw to it
        name, config = match["name"], match["config"]
        return self._guarded(
            lambda: datasets.load_dataset(name, config, split=self.split, streaming=streaming)
        )

    def _saved_set(self, path: Path, streaming: bool) -> Any:
        """What `Dataset.save_to_disk` wrote."""
        from datasets import DatasetDict, load_from_disk

        rows = load_from_disk(str(path))
        if isinstance(rows, DatasetDict):
            if self.split not in rows:
                raise SuffuseError(
                    f"'{path}' has no split {self.split!r}: it has {', '.join(rows)}"
                )
            rows = rows[self.split]
        return rows.to_iterable_dataset(min(64, max(1, len(rows)))) if streaming else rows

    def _chosen(self, path: Path, files: list[str]) -> list[str]:
        """The archives of the split: those with its name in theirs, else all of them."""
        if path.is_file():
            return [str(path)]
        for suffix in _ARCHIVES:
            found = [name for name in files if name.lower().endswith(suffix)]
            word = re.compile(rf"(^|[^a-z]){re.escape(self.split)}([^a-z]|$)", re.IGNORECASE)
            named = [name for name in found if word.search(name)]
            if found and not named and self.split != "train":
                raise SuffuseError(f"'{path}' has no {suffix} files named after {self.split!r}")
            if found:
                return [str(path / name) for name in named or found]
        raise SuffuseError(f"'{path}' holds no .parquet and no .tar files")

    def _guarded(self, do: Callable[[], Any]) -> Any:
        """`do()`, with whatever the library raises turned into one line."""
        try:
            return do()
        except SuffuseError:
            raise
        except Exception as error:
            # "An error occurred while generating the dataset" says nothing; its cause does.
            cause = error.__cause__ or error
            why = " ".join(str(cause).split()) or type(cause).__name__
            raise SuffuseError(f"cannot open '{self.where}': {why[:300]}") from error


def open_stream(
    source: Source | str,
    preprocess: Preprocess,
    *,
    streaming: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FolderStream | SequenceStream:
    """The stream of `source`: picked by number, or with `streaming` read in order.

    progress: told how many of how many headers are read, which only buckets need.
    Raises SuffuseError.
    """
    if isinstance(source, str):
        source = Source(source)
    if streaming:
        return SequenceStream(source.sequence(), preprocess)
    return FolderStream(source.table(), preprocess, progress=progress)


def _useful(name: str) -> bool:
    return is_picture(name) or name.lower().endswith(tuple(_ARCHIVES))


def _saved(path: Path) -> bool:
    """Whether `datasets` wrote this folder with `save_to_disk`."""
    return (path / "state.json").exists() or (path / "dataset_dict.json").exists()


def _undecoded(rows: Any, column: str) -> Any:
    from datasets import Image

    if rows.features is not None and isinstance(rows.features[column], Image):
        return rows.cast_column(column, Image(decode=False))
    return rows


def _tar_features(files: list[str]) -> Any:
    """The columns of tars, pictures as plain bytes.

    As pictures, the library would take a file of the working directory that happens to have the
    name of one in the tar instead of that one (`Image.encode_example`).
    """
    from datasets import Features, Image, Value, load_dataset

    rows = load_dataset(
        "webdataset", data_files={"train": files[:1]}, split="train", streaming=True
    )
    columns = rows.features
    return Features({n: Value("binary") if isinstance(c, Image) else c for n, c in columns.items()})
