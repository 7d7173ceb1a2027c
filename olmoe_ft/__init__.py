"""Fine-tuning for OLMoE: SFT, then DPO, with the router's losses in the objective."""

import os

# On a CPU, OpenMP's threads spin while they wait for each other. Where something else wants a core too, a step then
# takes up to 30 times as long; with a short spin it takes twice as long, and alone as long as before. Read when torch
# is imported, so it stands here.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
