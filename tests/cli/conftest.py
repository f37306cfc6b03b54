"""Commands are tested as users meet them: as processes."""

import os
import signal
import subprocess
import sys

import pytest
import tiny
from commands import command

ENV = {**os.environ, "COLUMNS": "80", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def start(tmp_path):
    """start(*args, **env): a new interpreter that runs `suffuse` in `tmp_path`."""

    def start(*args, **env):
        return subprocess.Popen(
            [sys.executable, "-m", "suffuse", *map(str, args)],
            cwd=tmp_path,
            env={**ENV, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            # Takes Ctrl-C even where the tests run in the background, which ignores it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    return start


@pytest.fixture
def run(tmp_path):
    """run(*args): exit status, standard output and standard error of a finished `suffuse`."""
    return lambda *args: command(args, tmp_path, ENV)


@pytest.fixture
def refusal(run):
    """refusal(*args): the message of a command that must end with 2 and one line on stderr."""

    def refusal(*args):
        status, out, err = run(*args)
        assert (status, out) == (2, ""), err
        assert err.count("\n") == 1 and err.endswith("\n"), err
        assert err.startswith("suffuse: ")
        return err.removeprefix("suffuse: ").rstrip("\n")

    return refusal


@pytest.fixture(scope="session", autouse=True)
def model(tmp_path_factory):
    """The model of every command that names none: a tiny one, drawing 128 x 128 pixels."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny.pipeline(unet={"sample_size": 64}).save_pretrained(folder)
    ENV["SUFFUSE_MODEL"] = str(folder)
    return folder
