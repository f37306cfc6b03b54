"""Linear probes: what a logistic regression learns from a CLIP's embeddings.

2103.00020, section 3.2 and figure 6: on all pictures, and on few of each class.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from suffuse.errors import SuffuseError
from suffuse.evaluation.labelled import Seen

SHOTS = (1, 2, 4, 8, 16)  # pictures of a class
REPEATS = 3  # draws of the few
# 0.316, as in OpenAI's example, for its features of length about 10; ours have length 1, and the
# same penalty on them takes 100 times as much.
STRENGTH = 31.6


@dataclass(frozen=True)
class FewShot:
    """Accuracy with `shots` pictures of each class: mean and deviation over draws, 0..1."""

    shots: int
    accuracy: float
    deviation: float


@dataclass(frozen=True)
class ProbeScores:
    """full: accuracy with all pictures for training, 0..1;  curve: with few of each class"""

    trained: int
    tested: int
    full: float
    curve: tuple[FewShot, ...]


def require_scikit() -> Any:
    """The library that fits. Raises SuffuseError where it is not installed."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise SuffuseError("a probe needs scikit-learn: pip install 'suffuse[evaluate]'") from None
    return LogisticRegression


def probe(
    train: Seen,
    test: Seen,
    shots: Sequence[int] = SHOTS,
    c: float = STRENGTH,
    repeats: int = REPEATS,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ProbeScores:
    """Fits on `train`, asks on `test`.

    shots: for the curve; those that no class has enough pictures for are left out
    c: inverse strength of the penalty, as scikit-learn counts it
    Raises SuffuseError for fewer than two classes.
    """
    if len(np.unique(train.labels)) < 2:
        raise SuffuseError("a probe tells classes apart: it needs pictures of two at least")
    most = int(np.bincount(train.labels).max())
    wanted = [k for k in shots if k <= most]
    total = 1 + len(wanted) * repeats
    curve = []
    for at, k in enumerate(wanted):
        found = []
        for i in range(repeats):
            found.append(_accuracy(train, test, few(train.labels, k, seed + i), c))
            progress(at * repeats + i + 1, total)
        curve.append(FewShot(k, float(np.mean(found)), float(np.std(found))))
    full = _accuracy(train, test, np.arange(len(train.labels)), c)
    progress(total, total)
    return ProbeScores(len(train.labels), len(test.labels), full, tuple(curve))


def few(labels: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Rows of `k` pictures of each class, or all that it has, drawn by `seed`."""
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(np.flatnonzero(labels == label))[:k] for label in np.unique(labels)]
    return np.concatenate(rows)


def _accuracy(train: Seen, test: Seen, rows: np.ndarray, c: float) -> float:
    model = require_scikit()(C=c, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of not having converged in a thousand steps
        model.fit(train.vectors.numpy()[rows], train.labels[rows])
    return float(model.score(test.vectors.numpy(), test.labels))
