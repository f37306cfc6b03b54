"""docs/walkthrough.md, command by command, as it stands there."""

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

PAGE = Path(__file__).resolve().parents[2] / "docs" / "walkthrough.md"


def commands():
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


@pytest.mark.slow
def test_every_command_of_the_walk_through_works(run, tmp_path):
    told = {}
    for program, *args in commands():
        assert program == "suffuse"
        status, out, err = run(*args)
        assert status == 0, (args, err)
        told[" ".join(args[:2])] = out
    assert list(told) == [
        "data emoji",
        "data check",
        "train autoencoder",
        "train latent",
        "generate a red apple on a blue background",
        "evaluate prompts",
    ]
    assert "background" in told["evaluate prompts"]
    pictures = sorted((tmp_path / "outputs").glob("*.png"))
    assert [Image.open(path).size for path in pictures] == [(64, 64)] * 4
