"""Which process of a launch this one is, as the launcher says in its environment; known before torch is imported."""

import os


def is_first() -> bool:
    """Whether this is the first process of the launch, which prints and writes for all of them."""
    return os.environ.get("RANK", "0") == "0"


def is_first_here() -> bool:
    """Whether this is the first process of the launch on its computer. -1 is torch's word for a launch of one."""
    return local_rank() <= 0


def local_rank() -> int:
    """The number of this process among those of the launch on its computer."""
    return int(os.environ.get("LOCAL_RANK", "0"))
