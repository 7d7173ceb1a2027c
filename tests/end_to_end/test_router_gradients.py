"""The guarantee of docs/router-objective.md: one optimizer step's gradient is the same on every machine.

`support/step_gradients.py` runs the real pipeline for one step of plain SGD and reads the gradient from the
weights it leaves. Every tensor's largest difference, over its largest element, is at most 1e-5 in fp32. The
coefficients are 50 times the usual ones, so that the router losses are a large part of the gradient.
"""

from dataclasses import replace

import pytest
from support.step_gradients import deviation, gradients, run_cases, strength
from support.training_cases import Case, product_of_modes, splits

MACHINES = ("2 processes", "ZeRO-2", "ZeRO-3")
# every pair of values of two of the five columns stands in some row
COVERING = [
    Case("sft", "full", "padded", "none", "2 processes"),
    Case("sft", "full", "packed", "reentrant", "ZeRO-3"),
    Case("sft", "lora", "packed", "non_reentrant", "2 processes"),
    Case("sft", "lora", "packed", "none", "ZeRO-3"),
    Case("sft", "lora", "padded", "reentrant", "ZeRO-2"),
    Case("sft", "full", "packed", "none", "ZeRO-2"),
    Case("sft", "full", "packed", "reentrant", "2 processes"),
    Case("sft", "full", "packed", "non_reentrant", "ZeRO-2"),
    Case("dpo", "full", "padded", "reentrant", "2 processes"),
    Case("dpo", "lora", "padded", "non_reentrant", "ZeRO-3"),
    Case("dpo", "full", "padded", "none", "ZeRO-2"),
    Case("kto", "full", "padded", "reentrant", "ZeRO-3"),
    Case("kto", "lora", "padded", "none", "2 processes"),
    Case("kto", "lora", "padded", "non_reentrant", "ZeRO-2"),
]
SPLITS = splits(MACHINES)
ACCUMULATION = Case(balance_over="accumulation", micro_batches=2)
WHOLE_STEP = Case(rows=4, micro_batches=1)
STRENGTHS = [Case(), Case(shape="2 processes")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All the runs of the fast tests: one launch a machine."""
    folder = tmp_path_factory.mktemp("gradients")
    pairs = [(case, case.reference) for case in COVERING] + SPLITS
    without = [replace(case, coefficient=0.0) for case in STRENGTHS]
    accumulations = [ACCUMULATION, replace(ACCUMULATION, shape="2 processes"), WHOLE_STEP]
    run_cases([case for pair in pairs for case in pair] + STRENGTHS + without + accumulations, folder)
    return folder


@pytest.mark.parametrize("case", COVERING, ids=lambda case: case.name)
def test_the_gradient_of_a_step_does_not_depend_on_the_machine(folder, case):
    actual, expected = gradients(case, folder), gradients(case.reference, folder)
    assert deviation(actual, expected) <= 1e-5
    gates = [tensor for name, tensor in actual.items() if "mlp.gate" in name]
    assert len(gates) == 2 and all(gate.abs().max() > 1e-4 for gate in gates)


@pytest.mark.parametrize(("split", "whole"), SPLITS, ids=lambda case: case.name)
def test_balanced_over_ranks_a_split_micro_batch_gives_the_gradient_of_the_unsplit_one(folder, split, whole):
    assert deviation(gradients(split, folder), gradients(whole, folder)) <= 1e-5


def test_balanced_one_by_one_the_parts_of_a_micro_batch_give_another_gradient(folder):
    """What `ranks` changes is there to be seen: the objectives differ, not only their rounding."""
    assert deviation(gradients(Case(), folder), gradients(SPLITS[0][1], folder)) > 1e-3


@pytest.mark.parametrize("case", STRENGTHS, ids=lambda case: case.shape)
def test_the_router_losses_have_the_strength_of_their_definition(folder, case):
    """The gates' gradient with the losses minus that without is autograd's on the mean over the micro-batches."""
    multiple, rest = strength(case, folder)
    assert multiple == pytest.approx(1, abs=1e-5) and rest < 1e-5


def test_balanced_over_accumulation_with_a_process_for_each_micro_batch_is_the_whole_step_at_once(folder):
    """Nothing is left to accumulate: the group is the step, as if one process had taken it in one micro-batch."""
    at_once = replace(ACCUMULATION, shape="2 processes")
    assert deviation(gradients(at_once, folder), gradients(WHOLE_STEP, folder)) <= 1e-5
    # one after the other, the first micro-batch sees less of the step: near, and not the same
    assert 1e-3 < deviation(gradients(ACCUMULATION, folder), gradients(WHOLE_STEP, folder)) < 0.5


@pytest.mark.slow
def test_every_mode_on_every_machine(tmp_path):
    cases = product_of_modes()
    run_cases([*cases, *(case.reference for case in cases)], tmp_path)
    wrong = {
        case.name: found
        for case in cases
        if not (found := deviation(gradients(case, tmp_path), gradients(case.reference, tmp_path))) <= 1e-5
    }
    assert len(cases) == 72 and not wrong
