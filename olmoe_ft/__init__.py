"""Fine-tuning for OLMoE: SFT, then DPO, with the router's losses in the objective."""

import logging
import os

# On a CPU, OpenMP's threads spin while they wait for each other. Where something else wants a core too, a step then
# takes up to 30 times as long; with a short spin it takes twice as long, and alone as long as before. Read when torch
# is imported, so it stands here.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# PEFT imports bitsandbytes where it is installed, which then tells every run of a kernel that no run here uses.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
