"""A studio in a process of its own and a browser that looks at it, for the tests of the page."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from PIL import Image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# Steps are over in a moment: what the stage shows is written down as it passes by.
WATCH = """
window.told = []; window.previews = 0;
document.addEventListener("securitypolicyviolation", (event) =>
  console.error("policy: " + event.violatedDirective + " " + event.blockedURI));
new MutationObserver((changes) => {
  for (const { target } of changes) {
    if (target.className === "stage-state") told.push(target.textContent);
    if (target.tagName === "IMG" && target.src.startsWith("data:image/png")) previews += 1;
  }
}).observe(document, { subtree: true, childList: true, attributes: true,
  attributeFilter: ["src"] });
"""


class Studio:
    """`suffuse studio` on the bundled model, which can be killed and started again."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._log = data / "log.txt"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        self._data.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "suffuse", "studio", "--port", str(self._port)]
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [*command, "--data", str(self._data)], stdout=log, stderr=log
            )
        for _ in range(1200):
            if self._process.poll() is not None:
                break
            try:
                with urlopen(f"{self.url}/api/models", timeout=5):
                    return
            except (URLError, OSError):
                time.sleep(0.1)
        self.kill()
        raise AssertionError(f"the studio did not start:\n{self._log.read_text()[-4000:]}")

    def kill(self) -> None:
        """As the power going off."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()

    def read(self, path: str) -> bytes:
        with urlopen(self.url + path, timeout=30) as answer:
            body: bytes = answer.read()
            return body

    def json(self, path: str) -> Any:
        return json.loads(self.read(path))

    def picture(self, path: str) -> Image.Image:
        return Image.open(io.BytesIO(self.read(path))).convert("RGB")


@contextmanager
def visit(browser: Any, url: str, /, trouble: tuple[str, ...] = (), **look: Any) -> Iterator[Any]:
    """A page in a context of its own: no storage, nobody's jobs.

    Afterwards nothing must have been asked of another host, and nothing must stand on the console
    but what is one of `trouble`.
    """
    look = {"locale": "en-US", "viewport": {"width": 1280, "height": 860}, **look}
    context = browser.new_context(**look)
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.add_init_script(WATCH)
    errors: list[str] = []
    page.on("console", lambda said: said.type == "error" and errors.append(said.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    own = (url, "data:", "blob:")
    page.on("request", lambda one: one.url.startswith(own) or errors.append(one.url))
    page.goto(url)
    page.locator("#f-model option").first.wait_for(state="attached")
    try:
        yield page
        left = [error for error in errors if not any(known in error for known in trouble)]
        assert not left, left
    finally:
        context.close()


def shot(page: Any, name: str) -> None:
    """A screenshot, where somebody wants them."""
    if folder := os.environ.get("SUFFUSE_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{folder}/{name}.png", animations="disabled")
