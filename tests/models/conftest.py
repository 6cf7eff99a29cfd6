"""What tests of pages need beside the libraries: the harness that starts servers."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "python"))
