"""Ctrl-C and SIGTERM ask a run to stop; they do not tear it apart."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class Interrupt:
    """In its block the first signal only sets `asked`; a second Ctrl-C stops at once."""

    def __init__(self, note: Callable[[str], None]):
        self.asked, self.note, self.owner = False, note, os.getpid()
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():  # Python allows no other
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:  # a job in the background
                    self.before[number] = signal.signal(number, self._heard)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.owner:  # a loader's process, forked from this one, which ends it
            return
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
        self.note("stopping after this step; Ctrl-C once more to stop without saving")
