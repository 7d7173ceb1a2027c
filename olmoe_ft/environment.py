"""What a process that trains needs in its environment before torch is imported."""

import logging
import os
import sys


def set_up() -> None:
    """Set what the user has not set; for the entry of a program, since it changes the whole process."""
    # On a CPU, OpenMP's threads spin while they wait for each other. Where something else wants a core too, a step then
    # takes up to 30 times as long; with a short spin it takes twice as long, and alone as long as before. Read when
    # torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # Packed batches change their shape at every step, and a GPU's memory that is cut into blocks of fixed size breaks
    # into pieces nobody can use. With segments that grow it does not. Read when torch first asks a GPU for memory.
    if sys.platform == "linux" and not {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & os.environ.keys():
        os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
    # PEFT imports bitsandbytes where it is installed, which then tells every run of a kernel that no run here uses.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
