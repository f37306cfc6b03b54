"""`suffuse evaluate images`: generated pictures against real ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from suffuse.cli.console import Bar, Debug, note
from suffuse.cli.report import (
    AsJson,
    Batch,
    Device,
    Features,
    Overwrite,
    PortName,
    at_least_one,
    check_new,
    number,
    tell,
)
from suffuse.errors import SuffuseError

if TYPE_CHECKING:
    from suffuse.evaluation.features import Look, Network
    from suffuse.evaluation.pictures import FolderPictures, Pictures
    from suffuse.evaluation.sets import SetScores
    from suffuse.evaluation.statistics import Statistics
    from suffuse.systems.clip import Clip


def images(
    generated: Annotated[Path, typer.Option(help="Folder, or .npz, of generated pictures.")],
    reference: Annotated[Path, typer.Option(help="Folder, or .npz of pictures or statistics.")],
    features: Features = None,
    port: PortName = "pytorch-fid",
    n: Annotated[
        int | None, typer.Option("--n", "-n", help="Only the first so many of each.")
    ] = None,
    save_statistics: Annotated[
        Path | None, typer.Option(help="Keep the reference's statistics, an .npz.")
    ] = None,
    clip: Annotated[
        str | None, typer.Option(help="File, folder or Hub name of a CLIP; else our own.")
    ] = None,
    batch: Batch = 32,
    device: Device = "auto",
    as_json: AsJson = None,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Compare generated pictures with real ones.

    FID, sFID, Inception Score, precision, recall and, where pictures have captions, CLIP score.
    """
    at_least_one(n=n, batch=batch)
    if save_statistics is not None and save_statistics.suffix != ".npz":
        raise SuffuseError(f"statistics are an .npz: name '{save_statistics}' something.npz")
    for path in (as_json, save_statistics):
        check_new(path, overwrite)
    sets = _open_sets(generated, reference, n)
    if save_statistics is not None and sets.reference is None:
        raise SuffuseError(f"'{reference}' holds statistics already, and nothing to make them of")

    from suffuse.evaluation.features import open_network
    from suffuse.evaluation.metrics import require_metrics
    from suffuse.evaluation.sets import compare
    from suffuse.systems.latent import choose_device

    require_metrics()
    place = choose_device(device)
    network = open_network(features, port, place)
    judge = _open_clip(clip, sets.generated, str(place))
    with Bar() as bar:
        said = None if judge is None else _clip_score(*judge, bar)
        if said is None and clip is not None:
            raise SuffuseError(
                f"none of the pictures in '{generated}' has a caption: a CLIP score needs "
                "metadata.jsonl, text files beside them, or pictures made by Suffuse"
            )
        ours, theirs = _look(sets, network, batch, bar)
        scores = compare(network, ours, theirs, sets.statistics)
    if save_statistics is not None and theirs is not None:
        theirs.statistics.save(save_statistics)
        note(f"wrote {save_statistics}")
    _tell(sets, network, scores, said, as_json)


@dataclass
class _Sets:
    """What `images` was given."""

    where: dict[str, str]
    generated: Pictures
    reference: Pictures | None
    statistics: Statistics | None

    @property
    def pictures(self) -> dict[str, Pictures]:
        found = {"generated": self.generated}
        return found if self.reference is None else {**found, "reference": self.reference}


def _open_sets(generated: Path, reference: Path, n: int | None) -> _Sets:
    from suffuse.evaluation.pictures import open_pictures
    from suffuse.evaluation.sets import load_statistics

    ours = open_pictures(generated, n)
    if ours is None:
        raise SuffuseError(f"'{generated}' holds no pictures: those of an .npz are called arr_0")
    theirs, known = open_pictures(reference, n), load_statistics(reference)
    if theirs is None and known is None:
        raise SuffuseError(f"'{reference}' holds neither pictures (arr_0) nor statistics (mu)")
    where = {"generated": str(generated), "reference": str(reference)}
    return _Sets(where, ours, theirs, known)


def _look(sets: _Sets, network: Network, batch: int, bar: Bar) -> tuple[Look, Look | None]:
    from suffuse.evaluation.features import look

    total, before = sum(map(len, sets.pictures.values())), len(sets.generated)

    def show(done: int) -> None:
        bar.step("looking at pictures", done, total)

    ours = look(network, sets.generated, batch=batch, progress=show)
    if sets.reference is None:
        return ours, None
    return ours, look(network, sets.reference, batch=batch, progress=lambda i: show(before + i))


def _open_clip(
    source: str | None, pictures: Pictures, device: str
) -> tuple[Clip, FolderPictures] | None:
    """The judge and what it judges; None without a CLIP, or for pictures that have no captions.

    Raises SuffuseError for those if a CLIP was named.
    """
    from suffuse.evaluation.pictures import FolderPictures
    from suffuse.systems.clip import load_clip
    from suffuse.weights.clip import has_bundled_clip

    if source is None and not (has_bundled_clip() and isinstance(pictures, FolderPictures)):
        return None
    if not isinstance(pictures, FolderPictures):
        raise SuffuseError("a CLIP score needs captions, which the pictures of an .npz do not have")
    return load_clip(source, device), pictures


def _clip_score(judge: Clip, pictures: FolderPictures, bar: Bar) -> dict[str, Any] | None:
    """The score and how many pictures it is of; None if none has a caption."""
    from suffuse.evaluation.clip import clip_scores

    def pairs() -> Iterator[Any]:
        for i, pair in enumerate(pictures.pairs(captioned=True)):
            yield pair
            bar.step("comparing with captions", i + 1, len(pictures))

    cut: list[str] = []
    scores = clip_scores(judge, pairs(), cut.append)
    if cut:
        note(cut[0] if len(cut) == 1 else f"{cut[0]}; so were {len(cut) - 1} more")
    if not len(scores):
        return None
    return {"model": judge.info.name, "score": float(scores.mean()), "pictures": len(scores)}


def _tell(
    sets: _Sets,
    network: Network,
    scores: SetScores,
    said: dict[str, Any] | None,
    as_json: str | None,
) -> None:
    for them in sets.pictures.values():
        if broken := them.broken.notice():
            note(broken)
    for line in scores.notes:
        note(line)
    counts = {name: len(them) - len(them.broken.found) for name, them in sets.pictures.items()}
    head = {**sets.where, "pictures": counts, "network": network.source}
    values = {**head, "identity": network.identity, **asdict(scores), "clip": said}
    spread = f" ± {scores.inception_score_deviation or 0:.3f}"
    shown = {
        **head,
        "FID": number(scores.fid),
        "sFID": number(scores.sfid),
        "Inception Score": number(scores.inception_score, spread),
        "precision": number(scores.precision),
        "recall": number(scores.recall),
        "CLIP score": None if said is None else number(said["score"], f" ({said['model']})"),
    }
    tell(shown, values, as_json)
