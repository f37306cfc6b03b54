"""Starting up: help without torch, the version, usage errors, output into a closed pipe."""

import re
import subprocess
import sys

import pytest

import suffuse

COMMANDS = [(), ("generate",), ("inspect",), ("studio",), ("train",), ("evaluate",)]
COMMANDS += [("evaluate", name) for name in ("prompts", "images", "reconstruction")]


def test_version(run):
    assert run("--version") == (0, f"suffuse {suffuse.__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_80_columns(command, run):
    status, out, err = run(*command, "--help")
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert not re.search(r"\w…", out)  # nothing is cut off


def test_help_imports_neither_torch_nor_pillow():
    code = (
        "import sys; sys.argv = ['suffuse', 'generate', '--help']\n"
        "from suffuse.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'PIL', 'numpy', 'tokenizers'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "args",
    [("paint",), ("generate", "a", "--bogus"), ("generate", "a", "--steps", "many"), ("inspect",)],
)
def test_usage_errors_end_with_2(args, run):
    status, out, err = run(*args)
    assert (status, out) == (2, "")
    assert "Traceback" not in err


def test_a_closed_pipe_is_no_error(start):
    process = start("--version")
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.wait(timeout=60)
