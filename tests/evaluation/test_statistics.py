"""Moments in pieces, and the files that statistics are kept in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from suffuse.errors import SuffuseError
from suffuse.evaluation.statistics import Gaussian, Moments, Statistics


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=6), st.floats(-1e3, 1e3))
def test_moments_of_pieces_are_those_of_the_whole(sizes, shift):
    rows = np.random.default_rng(sum(sizes)).normal(size=(sum(sizes), 3)) + shift
    moments = Moments()
    for part in torch.from_numpy(rows).split(sizes):
        moments.add(part)
    found = moments.gaussian()
    assert np.allclose(found.mean, rows.mean(0), rtol=1e-12, atol=1e-9)
    assert np.allclose(found.covariance, np.cov(rows, rowvar=False), rtol=1e-9, atol=1e-9)


def gaussian(width: int, seed: int) -> Gaussian:
    return Gaussian.of(torch.from_numpy(np.random.default_rng(seed).normal(size=(20, width))))


def test_saved_and_loaded(tmp_path):
    made = Statistics(gaussian(4, 0), gaussian(6, 1), "inception abc pytorch-fid", 20)
    made.save(tmp_path / "a.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    found = Statistics.load(tmp_path / "a.npz")
    assert (found.network, found.count) == (made.network, made.count)
    assert found.places is not None and made.places is not None
    assert torch.equal(found.points.covariance, made.points.covariance)
    assert torch.equal(found.places.mean, made.places.mean)


def test_files_of_other_programs(tmp_path):
    mean, covariance = np.arange(3, dtype=np.float32), np.eye(3)
    np.savez(tmp_path / "pytorch_fid.npz", mu=mean, sigma=covariance)
    found = Statistics.load(tmp_path / "pytorch_fid.npz")
    assert (found.places, found.network, found.count) == (None, None, None)
    assert found.points.mean.tolist() == [0, 1, 2] and found.points.mean.dtype == torch.float64
    # ADM's reference batches carry pictures too, which nothing here has to read.
    arrays = {"arr_0": np.zeros((1, 2, 2, 3), np.uint8), "mu_s": mean, "sigma_s": covariance}
    np.savez(tmp_path / "adm.npz", mu=mean, sigma=covariance, **arrays)
    assert Statistics.load(tmp_path / "adm.npz").places is not None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"arr_0": np.zeros(3)}, "holds no statistics"),
        ({"mu": np.zeros(3), "sigma": np.eye(2)}, "no mean and covariance"),
        ({"mu": np.zeros(3, int), "sigma": np.eye(3)}, "no mean and covariance"),
        ({"mu": np.full(2, np.nan), "sigma": np.eye(2)}, "not finite"),
        ({"mu": np.array([{}], object), "sigma": np.eye(1)}, "no .npz that can be read: Object"),
    ],
)
def test_what_is_no_statistics(arrays, message, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(SuffuseError, match=message):
        Statistics.load(tmp_path / "a.npz")


def test_what_is_no_npz(tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "one.npy", np.zeros(2))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    np.savez(tmp_path / "cut.npz", mu=np.zeros(300), sigma=np.eye(300))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:2000])
    for name in ("text", "one", "cut", "absent"):
        with pytest.raises(SuffuseError, match=rf"{name}\.npz"):
            Statistics.load(tmp_path / f"{name}.npz")


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(SuffuseError, match="cannot write"):
        Statistics(gaussian(2, 0)).save(tmp_path / "none" / "a.npz")
