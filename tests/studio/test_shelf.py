"""Models come when asked for and go when there is no room."""

import gc
import shutil
import weakref

import pytest

import suffuse
from suffuse.errors import SuffuseError
from suffuse.studio.shelf import Shelf, size_of, size_on_disk
from suffuse.systems.request import Request

MODELS = {"one": None, "two": None}


@pytest.fixture(scope="module")
def size():
    return size_of(suffuse.load(device="cpu"))


def test_models_stay_while_there_is_room(size):
    shelf = Shelf(MODELS, "cpu", 2 * size)
    one = shelf.system("one", Request())
    assert shelf.system("one", Request()) is one
    shelf.system("two", Request())
    assert shelf.names() == ("one", "two")
    assert shelf.system("one", Request()) is one
    assert shelf.names() == ("two", "one")


def test_the_least_recently_used_go_and_their_memory_with_them(size):
    shelf = Shelf(MODELS, "cpu", size)
    gone = weakref.ref(shelf.system("one", Request()))
    two = shelf.system("two", Request())
    gc.collect()
    assert shelf.names() == ("two",)
    assert gone() is None
    assert shelf.find("two") is two and shelf.find("one") is None


def test_a_model_larger_than_all_room_is_used_all_the_same():
    shelf = Shelf(MODELS, "cpu", 1)
    shelf.system("one", Request())
    shelf.system("two", Request())
    assert shelf.names() == ("two",)


def test_a_changed_embedding_is_another_model(tmp_path):
    import torch
    from safetensors.torch import save_file

    width = suffuse.load(device="cpu").parts.text.config.width
    file = tmp_path / "wug.safetensors"
    save_file({"emb_params": torch.ones(1, width)}, file)
    shelf, request = Shelf(MODELS, "cpu", 1 << 40), Request(embeddings=(str(file),))
    first = shelf.system("one", request)
    assert shelf.system("one", request) is first
    assert shelf.system("one", Request()) is not first
    save_file({"emb_params": torch.zeros(1, width)}, file)
    shutil.copystat("/", file)  # a time of change of its own
    assert shelf.system("one", request) is not first


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(SuffuseError, match="no model 'three' here"):
        Shelf(MODELS, "cpu").system("three", Request())
    (tmp_path / "a").write_bytes(b"12")
    (tmp_path / "b").write_bytes(b"345")
    assert [size_on_disk(p) for p in (None, str(tmp_path), str(tmp_path / "b"), "x/y")] == [
        0,
        5,
        3,
        0,
    ]
