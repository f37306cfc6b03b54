"""LoRAs and learned words in folders, told from their files' headers."""

import torch
from safetensors.torch import save_file

from suffuse.studio.library import Word, loras, words
from suffuse.weights.embedding import Embedding, save_embedding


def test_what_is_in_the_folders(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    save_file({"unet.x.lora_A.weight": torch.ones(1)}, first / "ink.safetensors")
    save_embedding(Embedding("rex", torch.ones(2, 8)), first / "rex.safetensors", "a1111")
    save_embedding(Embedding("<cat>", torch.ones(3, 8)), second / "learned.safetensors")
    save_file({"unet.x.lora_A.weight": torch.ones(1)}, second / "ink.safetensors")
    save_file({"down_blocks.0.x": torch.ones(1)}, second / "other.safetensors")
    (second / "broken.safetensors").write_bytes(b"\xff" * 20)
    for name, head in (("list", b"[]"), ("odd", b'{"emb_params": {"shape": [2, null]}}')):
        (second / f"{name}.safetensors").write_bytes(len(head).to_bytes(8, "little") + head)
    folders = (first, second, tmp_path / "none")
    assert loras(folders) == {"ink": first / "ink.safetensors"}
    assert words(folders) == {
        "rex": Word(first / "rex.safetensors", 2, 8),
        "<cat>": Word(second / "learned.safetensors", 3, 8),
    }
