"""`samplers/closed_form.py` and `gaussian.py` can be imported by name."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent / "samplers"))
