"""`plan.json`: what is planned for the launch that is running, to be shown beside what it measures."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from olmoe_ft.planning.inputs import plan_inputs
from olmoe_ft.planning.machine import Machine, sharded
from olmoe_ft.planning.measured_step import measure_step
from olmoe_ft.planning.memory import device_memory
from olmoe_ft.planning.plan import Plan, largest_batch, make_plan
from olmoe_ft.planning.schedule import schedule
from olmoe_ft.planning.time import Rates, step_time, work_of
from olmoe_ft.stages import TrainerArguments
from olmoe_ft.training.arguments import deepspeed_config, whole_weights
from olmoe_ft.training.run_directory import RunDirectory
from olmoe_ft.training.steps import Steps


def launched_machine(arguments: TrainerArguments, processes: int, device: torch.device) -> Machine:
    """The machine that this launch runs on."""
    nodes = processes // int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    machine = Machine("this launch", processes, gpu=device.type != "cpu", nodes=nodes)
    deepspeed = deepspeed_config(arguments)
    return machine if deepspeed is None else sharded(machine, deepspeed)


class LaunchPlan:
    """The plan of a launch. Most of it takes seconds to find, so it is asked for when nothing waits.

    Args:
        plan: with inputs.
        checkpoint: bytes of one.
    """

    def __init__(self, plan: Plan, machine: Machine, steps: Steps, checkpoint: int) -> None:
        self.plan, self.machine, self.steps, self.checkpoint = plan, machine, steps, checkpoint

    def at_once(self) -> dict[str, Any]:
        """What is known without looking at every row."""
        return {
            "machine": asdict(self.machine),
            "processes": self.machine.processes,
            "gpu": self.machine.gpu,
            "steps": self.steps.steps,
            "checkpoint_bytes": self.checkpoint,
        }

    def whole(self) -> dict[str, Any]:
        """With what takes seconds."""
        return self.at_once() | figures(self.plan, self.machine)


def figures(plan: Plan, machine: Machine) -> dict[str, Any]:
    """Tokens, the memory of a device in bytes and, on GPUs, the seconds of a step at the assumed rates."""
    assert plan.inputs is not None
    recipe, config, arguments = plan.recipe, plan.config, plan.arguments
    batch = largest_batch(plan)
    with _without_bars():
        steps = schedule(plan.inputs.train, arguments, machine.processes, plan.end_to_end)
    with whole_weights(arguments):  # under ZeRO-3, libraries would look for shards
        step = measure_step(recipe, config, arguments, batch, machine.gpu)
    memory = device_memory(step, machine, arguments.gradient_accumulation_steps > 1)
    found: dict[str, Any] = {
        "tokens": steps.tokens,
        "tokens_per_step": steps.tokens_per_step,
        "padding": steps.padding,
        "micro_batch": {"rows": batch.rows, "tokens": batch.tokens, "packed": batch.packed},
        "memory": asdict(memory),
    }
    if machine.gpu:
        time = step_time(step, machine, work_of(recipe, config, arguments, steps.computed), Rates())
        found |= {"seconds_per_step": time.seconds, "tokens_per_second": time.tokens_per_second}
    return found


def complete(run: RunDirectory, planned: dict[str, Any]) -> None:
    """Complete the plan of a launch that was killed before it could.

    Args:
        planned: `plan.json`, as the launch wrote it when it began.
    Raises:
        UserError: a file that the recipe names is not there any more.
        TypeError: it names no machine.
    """
    machine = Machine(**planned["machine"])
    (read,) = plan_inputs(run.recipe)
    plan = make_plan(read)
    if plan.inputs is not None:
        run.write_plan(planned | figures(plan, machine))


@contextmanager
def _without_bars() -> Iterator[None]:
    """Without the progress bars of `datasets`, behind what the run has printed."""
    before = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            enable_progress_bars()
