"""What kinds of training there are: one file a stage, and the table that every other folder asks.

`base.Stage` lists what a stage answers. `sft.py` and `dpo.py` answer it. To add a stage, write its file and add it to
`STAGES`; nothing outside this folder compares a stage's name. The files import nothing heavy until they are asked.
"""

from olmoe_ft.stages.base import Metric, Packing, Stage, TrainerArguments
from olmoe_ft.stages.dpo import DPO
from olmoe_ft.stages.sft import SFT

STAGES: dict[str, Stage] = {stage.name: stage for stage in (SFT(), DPO())}

__all__ = ["STAGES", "Metric", "Packing", "Stage", "TrainerArguments"]
