"""A set of generated pictures against a set of real ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from suffuse.errors import SuffuseError
from suffuse.evaluation.features import Look, Network
from suffuse.evaluation.metrics import (
    NEIGHBOURS,
    PrecisionRecall,
    frechet,
    inception_score,
    precision_recall,
)
from suffuse.evaluation.statistics import Statistics, read_arrays


@dataclass(frozen=True)
class SetScores:
    """What the sets are worth; None where something is missing, and `notes` say what.

    fid, sfid: lower is better, 0 for equal sets
    inception_score: higher is better, of the generated set alone, with its deviation over parts
    precision, recall: 0..1
    """

    fid: float
    sfid: float | None
    inception_score: float | None
    inception_score_deviation: float | None
    precision: float | None
    recall: float | None
    notes: tuple[str, ...] = ()


def compare(
    network: Network,
    generated: Look,
    reference: Look | None,
    statistics: Statistics | None = None,
    k: int = NEIGHBOURS,
) -> SetScores:
    """Scores of `generated` against a set that was looked at, or one's statistics, or both.

    With both, the Fréchet distances are to the statistics, as ADM's evaluator does with its
    reference batches. Raises SuffuseError where they were made with another network.
    """
    statistics = _statistics(network, reference, statistics)
    ours = generated.statistics
    notes: list[str] = []
    if statistics.network is None:
        notes.append("the file of reference statistics does not say what network made it")
    width, smallest = len(ours.points.mean), min(_count(ours), _count(statistics))
    if smallest <= width:
        notes.append(
            f"{smallest:.0f} pictures are few for {width} features: FID comes out too high, and is "
            "only comparable between sets of one size"
        )
    sfid = _sfid(statistics, ours, notes)
    score, deviation = _inception_score(generated, notes)
    found = _precision_recall(generated, reference, k, notes)
    return SetScores(
        frechet(statistics.points, ours.points),
        sfid,
        score,
        deviation,
        None if found is None else found.precision,
        None if found is None else found.recall,
        tuple(notes),
    )


def _statistics(
    network: Network, reference: Look | None, statistics: Statistics | None
) -> Statistics:
    """What the distances are to. Raises SuffuseError for nothing, or for another network's."""
    if statistics is None:
        if reference is None:
            raise SuffuseError("there is nothing to compare with")
        return reference.statistics
    if statistics.network not in (None, network.identity):
        raise SuffuseError(
            f"the reference statistics were made with another network ({statistics.network}, not "
            f"{network.identity}): scores of two networks cannot be compared"
        )
    return statistics


def _count(statistics: Statistics) -> float:
    return float("inf") if statistics.count is None else statistics.count


def _sfid(reference: Statistics, ours: Statistics, notes: list[str]) -> float | None:
    if reference.places is None or ours.places is None:
        notes.append("no sFID: the reference statistics have no mu_s and sigma_s")
        return None
    return frechet(reference.places, ours.places)


def _inception_score(generated: Look, notes: list[str]) -> tuple[float | None, float | None]:
    if generated.logits is None:
        notes.append("no Inception Score: the network knows no classes")
        return None, None
    return inception_score(generated.logits)


def _precision_recall(
    generated: Look, reference: Look | None, k: int, notes: list[str]
) -> PrecisionRecall | None:
    if reference is None:
        notes.append("no precision and recall: they need the reference pictures themselves")
        return None
    if min(len(reference.points), len(generated.points)) <= k:
        notes.append(f"no precision and recall: they take {k + 1} pictures a set")
        return None
    return precision_recall(reference.points, generated.points, k)


def load_statistics(path: Path) -> Statistics | None:
    """The statistics of an .npz that has them; None for an .npz of pictures alone or a folder.

    Raises SuffuseError.
    """
    if path.suffix.lower() != ".npz" or not read_arrays(path, ("mu",)):
        return None
    return Statistics.load(path)
