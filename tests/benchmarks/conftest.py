"""The tests of the benchmarks are the only ones that import them."""

import sys

from support import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
