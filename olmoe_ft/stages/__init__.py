"""What kinds of training there are: one file a stage, and the table that every other folder asks.

`base.Stage` lists what a stage answers. `sft.py`, `dpo.py` and `kto.py` answer it. To add a stage, write its file and
add it to `STAGES`; nothing outside this folder compares a stage's name. The files import nothing heavy until they are
asked.
"""

from olmoe_ft.stages.base import Forwards, Metric, Packing, Stage, Tally, TrainerArguments
from olmoe_ft.stages.dpo import DPO
from olmoe_ft.stages.kto import KTO
from olmoe_ft.stages.sft import SFT

STAGES: dict[str, Stage] = {stage.name: stage for stage in (SFT(), DPO(), KTO())}

__all__ = ["STAGES", "Forwards", "Metric", "Packing", "Stage", "Tally", "TrainerArguments"]
