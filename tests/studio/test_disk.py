"""Files by their hash: whole or not at all, and claimed by one studio."""

import hashlib
import os
import subprocess
import sys

import pytest

from suffuse.errors import SuffuseError
from suffuse.studio import disk
from suffuse.studio.disk import Files


@pytest.fixture
def files(tmp_path):
    found = Files(tmp_path)
    found.open()
    yield found
    found.close()


def test_a_file_is_named_by_what_is_in_it(files, tmp_path):
    digest = files.put("image", b"pixels")
    assert digest == hashlib.sha256(b"pixels").hexdigest()
    path = files.path("image", digest)
    assert path == tmp_path / "images" / digest[:2] / f"{digest}.png"
    assert path.read_bytes() == b"pixels"
    assert files.put("image", b"pixels") == digest
    assert files.path("film", digest) is None
    files.remove("image", digest)
    files.remove("image", digest)
    assert files.path("image", digest) is None


@pytest.mark.parametrize("name", ["../../lock", "", "0" * 63, "A" * 64, "0" * 64 + "/..", "é" * 64])
def test_what_is_no_hash_names_no_file(files, name):
    assert files.path("image", name) is None
    assert files.path("../", "0" * 64) is None


def test_a_full_disk_leaves_nothing_behind(files, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as caught:
        files.put("image", b"pixels")
    assert disk.disk_trouble(caught.value) == "the disk is full"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "lock"]


def test_what_an_interrupted_write_left_is_swept_up(tmp_path):
    files = Files(tmp_path)
    files.open()
    digest = files.put("film", b"frames")
    files.close()
    left = tmp_path / "films" / digest[:2] / ".0123456789abcdef.tmp"
    left.write_bytes(b"fra")
    files.open()
    assert not left.exists()
    assert files.path("film", digest).read_bytes() == b"frames"
    files.close()


def test_one_studio_a_folder_also_across_processes(files, tmp_path):
    with pytest.raises(SuffuseError, match="another studio uses"):
        Files(tmp_path).open()
    program = (
        "import sys, pathlib; from suffuse.studio.disk import Files\n"
        "Files(pathlib.Path(sys.argv[1])).open()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    other = subprocess.run(command, capture_output=True, text=True)
    assert "another studio uses" in other.stderr
    files.close()
    assert subprocess.run(command).returncode == 0


def test_a_folder_that_cannot_be_had_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SuffuseError, match="cannot use the folder"):
        Files(tmp_path / "file" / "data").open()
