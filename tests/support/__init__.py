"""What several tests use: small networks and tokenizers, rows, recipes of tiny runs, launches, servers."""

from pathlib import Path

SUPPORT = Path(__file__).parent  # some of its modules are programs, which tests start
REPOSITORY = SUPPORT.parents[1]
