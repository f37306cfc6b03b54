"""The remembered hash of a checkpoint."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from suffuse.errors import SuffuseError
from suffuse.weights import hashes


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(hashes, "WORTH", 4)


def of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_of_several_files_in_order(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"first")
    two.write_bytes(b"second")
    assert hashes.sha256([one, two]) == of(b"firstsecond")
    assert hashes.sha256([two, one]) == of(b"secondfirst")


def test_an_answer_is_kept_until_the_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "model"
    file.write_bytes(b"before")
    time = 10**18
    os.utime(file, ns=(time, time))
    assert hashes.sha256([file]) == of(b"before")
    file.write_bytes(b"behind")  # the same size, and made to look as old
    os.utime(file, ns=(time, time))
    assert hashes.sha256([file]) == of(b"before")
    os.utime(file, ns=(time + 1, time + 1))
    assert hashes.sha256([file]) == of(b"behind")


def test_small_files_leave_nothing_behind(tmp_path: Path) -> None:
    file = tmp_path / "model"
    file.write_bytes(b"abc")
    assert hashes.sha256([file]) == of(b"abc")
    assert not hashes.cache().exists()


@pytest.mark.parametrize("content", ["{", "[1, 2]"])
def test_a_damaged_cache_is_begun_anew(tmp_path: Path, content: str) -> None:
    hashes.cache().parent.mkdir(parents=True)
    hashes.cache().write_text(content)
    file = tmp_path / "model"
    file.write_bytes(b"before")
    assert hashes.sha256([file]) == of(b"before")
    assert list(json.loads(hashes.cache().read_text()).values()) == [of(b"before")]


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    file = tmp_path / "model"
    file.write_bytes(b"before")
    assert hashes.sha256([file]) == of(b"before")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SuffuseError, match="gone: cannot be read"):
        hashes.sha256([tmp_path / "gone"])
