"""Published values of OLMoE's adapted models, in per cent, by the name of a column of the suite (suite.py).

From Muennighoff et al. 2024 (arXiv:2409.02060): base, SFT and DPO are of the table of adapted models, read in the
authors' copy `visuals/twitterblog_images/perf_adapt.png` (github.com/allenai/OLMoE at 357454f); KTO is of the
comparison of DPO and KTO, as we read it, which that copy does not have. They have no standard errors.

Nothing is here for OLMoE-1B-7B-0125: we found no source for these columns that we could read ourselves.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A row of a published table."""

    name: str
    values: dict[str, float]


BASE = Published(
    "base",
    {"mmlu": 49.8, "gsm8k": 3.0, "bbh": 33.6, "humaneval": 22.4, "xstest": 59.7, "ifeval": 16.6},
)
SFT = Published(
    "SFT",
    {
        "mmlu": 51.4,
        "gsm8k": 40.5,
        "bbh": 38.0,
        "humaneval": 51.6,
        "alpaca_eval": 69.2,
        "xstest": 84.1,
        "ifeval": 43.3,
    },
)
DPO = Published(
    "DPO",
    {
        "mmlu": 51.9,
        "gsm8k": 45.5,
        "bbh": 37.0,
        "humaneval": 54.8,
        "alpaca_eval": 84.0,
        "xstest": 82.6,
        "ifeval": 48.1,
    },
)
KTO = Published(
    "KTO",
    {
        "mmlu": 51.2,
        "gsm8k": 45.5,
        "bbh": 34.1,
        "humaneval": 57.1,
        "alpaca_eval": 81.6,
        "xstest": 86.6,
        "ifeval": 47.5,
    },
)
COMPARED = (SFT, DPO, KTO)
"""Those that the suite's table shows beside what was measured."""
