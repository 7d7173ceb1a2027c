"""What a recipe needs of a batch system: sums over stages, sizes of machines, bytes by hand."""

from dataclasses import replace

import pytest

from olmoe_ft.planning.inputs import plan_inputs
from olmoe_ft.planning.job import PROCESS, Needs, on_nodes, plan_job
from olmoe_ft.planning.machine import Machine
from olmoe_ft.recipe import RecipeError, load_recipe

ZERO3 = "configs/accelerate/zero3.yaml"
SHORT = ("training.max_steps=4", "data.train.0.max_rows=64", "data.answers=null")
TWO = Machine("zero3", 2, stage=3, deepspeed=True)


def test_stages_follow_each_other():
    one = Needs(steps=10, seconds=20.0, step=2.0, device=5, host=9, checkpoint=7)
    other = Needs(steps=1, seconds=3.0, step=3.0, device=6, host=8, checkpoint=7)
    assert one.then(other) == Needs(steps=11, seconds=23.0, step=3.0, device=6, host=9, checkpoint=7)
    assert one.then(replace(other, seconds=None)).seconds is None and one.then(replace(other, steps=None)).steps is None


def test_machines_of_another_size():
    assert on_nodes(TWO, None, None) == TWO
    assert on_nodes(TWO, 8, None) == replace(TWO, processes=8)
    assert on_nodes(TWO, None, 3) == replace(TWO, processes=6, nodes=3)
    assert on_nodes(replace(TWO, processes=16, nodes=2), None, 4) == replace(TWO, processes=32, nodes=4)
    with pytest.raises(RecipeError, match="--devices: found 9 for 2 nodes; allowed: multiples of 2"):
        on_nodes(TWO, 9, 2)
    for one in (Machine("gpu", 1), Machine("cpu", 2, gpu=False)):
        with pytest.raises(RecipeError, match="--devices: found 2, but .*yaml is for one process"):
            on_nodes(one, 2, None)


def test_needs_of_a_tiny_run():
    """1,976,448 parameters of 4 bytes. A checkpoint has them and two moments of each; under ZeRO-3 them, the copies
    of fp32 that are trained, and the moments."""
    recipe = load_recipe("tiny/sft", SHORT)
    machine, needs = plan_job(plan_inputs(recipe), None, None, None)
    assert (machine.name, machine.processes) == ("cpu", 1)  # as `plan` begins with
    assert (needs.steps, needs.seconds, needs.step) == (4, None, 0)
    weights, sample = 4 * 1_976_448, 4 * 2**16  # in every process what `optim/moved` compares, of its own weights
    assert needs.checkpoint == pytest.approx(3 * weights + sample, rel=0.01) and needs.host == PROCESS + needs.device
    machine, sharded = plan_job(plan_inputs(recipe), ZERO3, 8, 2)
    assert (machine.processes, machine.nodes) == (8, 2)
    assert sharded.seconds == 4 * sharded.step > 0
    assert sharded.checkpoint == pytest.approx(4 * weights + 8 * sample, rel=0.02)
    assert sharded.host == pytest.approx(4 * (PROCESS + weights), rel=1e-3)
