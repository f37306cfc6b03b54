"""Shared by all tests: modules beside this file (`tiny`) can be imported by name."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores; read by torch when it is first imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
