"""`suffuse studio`: what it refuses, and that it serves and ends."""

import re
import signal
import socket
import subprocess
import sys

import httpx


def test_other_addresses_need_a_key(refusal):
    assert "--api-key" in refusal("studio", "--host", "0.0.0.0", "--port", 0)


def test_a_taken_port(refusal, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refusal("studio", "--port", port, "--data", tmp_path / "data")
    assert f"port {port}" in said and "--port" in said
    assert not (tmp_path / "data").exists()


def test_a_data_folder_that_is_none(refusal, tmp_path):
    (tmp_path / "file").write_text("")
    assert "file" in refusal("studio", "--port", 0, "--data", tmp_path / "file")


def test_models_that_are_not_there(refusal):
    assert "no folder 'nowhere'" in refusal("studio", "--models", "nowhere")
    assert "no such file" in refusal("studio", "--model", "nowhere.safetensors")


def test_workers_elsewhere_or_here(refusal):
    assert "give one of them" in refusal("studio", "--ray", "--device", "cpu")
    assert "give --ray as well" in refusal("studio", "--replicas", 2)


def test_without_the_extra(tmp_path):
    code = (
        "import sys; sys.modules['fastapi'] = None\n"
        "sys.argv = ['suffuse', 'studio', '--port', '0']\n"
        "from suffuse.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == 'suffuse: the studio needs fastapi: pip install "suffuse[studio]"\n'


def test_it_serves_until_ctrl_c(start, tmp_path):
    """With a key that is asked for, and a folder of models to choose from."""
    models = tmp_path / "models"
    (models / "mine").mkdir(parents=True)
    (models / "mine" / "model_index.json").write_text("{}")
    (models / "broken.safetensors").write_bytes(b"\xff" * 9)
    flags = ("--host", "0.0.0.0", "--port", 0, "--data", tmp_path / "data", "--models", models)
    process = start("studio", *flags, SUFFUSE_API_KEY="secret")
    line = process.stdout.readline()
    url = re.fullmatch(r"studio: (http://127\.0\.0\.1:\d+/)  \(asks for the API key\)\n", line)[1]
    with httpx.Client(base_url=url, timeout=60) as client:
        assert client.get("/").status_code == 401
        assert client.get("/health").status_code == 200
        client.auth = ("me", "secret")
        assert "<script" in client.get("/").text
        names = [model["name"] for model in client.get("/api/models").json()["models"]]
    assert names == ["tiny", "mine"]  # the first from SUFFUSE_MODEL
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1].startswith("stopped")
    assert "Traceback" not in err
