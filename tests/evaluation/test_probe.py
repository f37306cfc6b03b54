"""Probes on classes that can be told apart, and on those that cannot."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from suffuse.errors import SuffuseError
from suffuse.evaluation.labelled import Seen
from suffuse.evaluation.probe import few, probe


def clouds(seed, count=120, spread=0.5, classes=4):
    """Points about a direction for each class."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(classes, 8))
    labels = np.sort(rng.integers(classes, size=count))
    points = centres[labels] + spread * rng.normal(size=(count, 8))
    vectors = normalize(torch.from_numpy(points).float(), dim=1)
    return Seen(vectors, labels, np.arange(count))


def test_more_pictures_teach_more():
    done = []
    found = probe(
        clouds(1),
        clouds(2),
        shots=(1, 8, 99),
        repeats=2,
        progress=lambda i, total: done.append((i, total)),
    )
    assert [few.shots for few in found.curve] == [1, 8]  # no class has 99
    assert found.full > 0.9 and found.curve[0].accuracy < found.curve[1].accuracy <= 1
    assert (found.trained, found.tested) == (120, 120)
    assert done[-1] == (5, 5) and len(done) == 5


def test_what_cannot_be_told_apart_is_not():
    train, test = clouds(1), clouds(2)
    shuffled = np.random.default_rng(0).permutation(train.labels)
    found = probe(Seen(train.vectors, shuffled, train.which), test, shots=())
    assert found.full < 0.6 and found.curve == ()


def test_few_takes_so_many_of_each_class():
    labels = np.array([0] * 5 + [1] * 2 + [7] * 9)
    rows = few(labels, 3, seed=1)
    assert np.bincount(labels[rows]).tolist() == [3, 2, 0, 0, 0, 0, 0, 3]
    assert len(set(rows.tolist())) == len(rows)
    assert few(labels, 3, seed=1).tolist() == rows.tolist() != few(labels, 3, seed=2).tolist()


def test_one_class_is_refused():
    with pytest.raises(SuffuseError, match="needs pictures of two at least"):
        probe(clouds(1, classes=1), clouds(2, classes=1))
