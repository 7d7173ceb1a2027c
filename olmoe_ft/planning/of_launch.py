"""`plan.json`: what is planned for the launch that is running, to be shown beside what it measures."""

import os
from dataclasses import asdict
from typing import Any

import torch

from olmoe_ft.inputs import Inputs
from olmoe_ft.planning.machine import Machine, sharded
from olmoe_ft.planning.measured_step import measure_step
from olmoe_ft.planning.memory import device_memory
from olmoe_ft.planning.plan import Plan, largest_batch
from olmoe_ft.planning.schedule import schedule
from olmoe_ft.planning.time import Rates, step_time, work_of
from olmoe_ft.stages import TrainerArguments
from olmoe_ft.training.steps import Steps


def launched_machine(arguments: TrainerArguments, processes: int, device: torch.device) -> Machine:
    """The machine that this launch runs on."""
    nodes = processes // int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    machine = Machine("this launch", processes, gpu=device.type != "cpu", nodes=nodes)
    deepspeed = getattr(arguments, "hf_deepspeed_config", None)
    return machine if deepspeed is None else sharded(machine, deepspeed.config)


class LaunchPlan:
    """The plan of a launch. Most of it takes seconds to find, so it is asked for when nothing waits.

    Args:
        steps: that the run takes.
        checkpoint: bytes of one.
    """

    def __init__(
        self, inputs: Inputs, arguments: TrainerArguments, machine: Machine, steps: Steps, checkpoint: int
    ) -> None:
        self.inputs = inputs
        self.plan = Plan(inputs.recipe, inputs.config, arguments, inputs, [], [])
        self.machine, self.steps, self.checkpoint = machine, steps, checkpoint

    def at_once(self) -> dict[str, Any]:
        """What is known without looking at every row."""
        return {
            "processes": self.machine.processes,
            "gpu": self.machine.gpu,
            "steps": self.steps.steps,
            "checkpoint_bytes": self.checkpoint,
        }

    def whole(self) -> dict[str, Any]:
        """With tokens, the memory of a device in bytes and, on GPUs, the seconds of a step at the assumed rates."""
        recipe, config, arguments = self.plan.recipe, self.plan.config, self.plan.arguments
        batch = largest_batch(self.plan)
        steps = schedule(self.inputs.train, arguments, self.machine.processes, self.plan.shares_prompts)
        step = measure_step(recipe, config, arguments, batch, self.machine.gpu)
        memory = device_memory(step, self.machine, arguments.gradient_accumulation_steps > 1)
        found = self.at_once() | {
            "tokens": steps.tokens,
            "tokens_per_step": steps.tokens_per_step,
            "padding": steps.padding,
            "micro_batch": {"rows": batch.rows, "tokens": batch.tokens, "packed": batch.packed},
            "memory": asdict(memory),
        }
        if self.machine.gpu:
            time = step_time(step, self.machine, work_of(recipe, config, arguments, steps.computed), Rates())
            found |= {"seconds_per_step": time.seconds, "tokens_per_second": time.tokens_per_second}
        return found
