"""Who keeps what: the formulas of `device_memory`, with numbers made for them."""

from dataclasses import replace

import pytest

from olmoe_ft.constants import GIB
from olmoe_ft.model import OlmoeConfig
from olmoe_ft.planning.evaluation_memory import evaluation_bytes
from olmoe_ft.planning.machine import Machine, read_machine
from olmoe_ft.planning.memory import device_memory
from olmoe_ft.planning.step_memory import StepMemory
from olmoe_ft.recipe import RecipeError, load_recipe

# 800 parameters of 2 bytes, all trained; a layer of 400; forward and backward hold 1,000
STEP = StepMemory(
    weights=1600,
    adapters=0,
    trained=800,
    itemsize=2,
    largest_layer=400,
    largest_gradient=100,
    gradients=1600,
    optimizer=3200,
    moments=1600,
    reference=1600,
    working=1000,
    working_otherwise=5000,
    recomputes=True,
    kept=0,
    evaluation=0,
    head=300,
    peak=8400,
    peak_otherwise=9000,
)


def memory(accumulates=False, step=STEP, **machine):
    return device_memory(step, Machine("m", **machine), accumulates)


def test_one_device_is_what_was_measured():
    found = memory(processes=1)
    assert found.peak == 8400 and found.gather == 0 and found.host == 0


def test_data_parallel_devices_have_buckets_of_all_gradients():
    assert memory(processes=4).peak == 8400 + 1600


def test_what_is_evaluated_between_steps_comes_on_top_of_what_stays():
    """One device keeps 1600 + 3200 + 1600 between steps; of 4 under ZeRO-3 400 + 400 + 2400 and gradients of 800."""
    small, large = (replace(STEP, evaluation=size) for size in (2000, 9000))
    assert memory(step=small, processes=1).peak == 6400 + 2000
    assert memory(step=large, processes=1).peak == 6400 + 9000
    assert memory(step=large, processes=4, stage=3).peak == 4000 + 9000


def test_evaluations_need_the_weights_and_a_cache():
    """OLMoE-1B-7B in bf16: 6,919,161,856 weights; 64 questions of 1,024 tokens, each 16 layers of 2 x 2,048 numbers,
    twice while it grows."""
    recipe = load_recipe("olmoe-1b-7b-0924/sft/full", ["data.train=[{path: x}]"])
    evaluated = load_recipe("olmoe-1b-7b-0924/sft/full", ["evaluation.every_steps=5", "evaluation.suite=olmoe"])
    config = OlmoeConfig(intermediate_size=1024)
    assert evaluation_bytes(recipe, config) == 0
    assert evaluation_bytes(evaluated, config) == 2 * (6_919_161_856 + 2 * 64 * 1024 * 16 * 2 * 2048)


def test_zero_2():
    """Weights 1600 and reference 1600 whole; of 4: fp32 copy and moments 12 x 800 / 4, gradients 4 x 800 / 4.

    Backward needs 1000 more and 100 for a copy; the step, gradients and their flat copy, 800 + 800, is more.
    """
    found = memory(processes=4, stage=2)
    assert (found.weights, found.optimizer, found.gradients, found.reference) == (1600, 2400, 800, 1600)
    assert found.peak == 1600 + 1600 + 2400 + 1600
    # with micro-batches before it, backward finds their gradients
    assert memory(True, processes=4, stage=2).peak == 1600 + 1600 + 2400 + 1100 + 800
    # two buckets of 100 elements and a flat copy
    assert memory(True, processes=4, stage=2, bucket=100).peak == 1600 + 1600 + 2400 + 1000 + 800 + 600
    # a CPU keeps 300 bytes of gradients
    kept = replace(STEP, kept=300)
    assert memory(True, step=kept, processes=4, stage=2).peak == 1600 + 1600 + 2400 + 1100 + 800 + 300


def test_zero_3():
    """All of it over 4; while layers are used up to `live` gathered weights.

    Two layers are on their way where weights are gathered again: with checkpointing, or because not all may stay.
    """
    found = memory(processes=4, stage=3)
    assert (found.weights, found.optimizer, found.gradients, found.reference) == (400, 2400, 800, 400)
    assert found.gather == 1600 + 800 and found.peak == 400 + 400 + 2400 + 800 + 1000 + 2400
    assert memory(processes=4, stage=3, live=100).gather == 200 + 800
    once = replace(STEP, recomputes=False, kept=300)
    other = memory(step=once, processes=4, stage=3)
    assert other.gather == 1600 and other.peak == 400 + 400 + 2400 + 800 + 1000 + 1600 + 300
    assert memory(step=once, processes=4, stage=3, live=100).gather == 200 + 800


def test_offload_moves_states_and_weights_to_the_host():
    found = memory(processes=4, stage=3, offload_optimizer=True, offload_weights=True)
    assert (found.weights, found.optimizer, found.gradients) == (0, 0, 0)
    assert found.host == 2400 + 800 + 800 + 400 + 400 and found.reference == 0


def test_zero_1_keeps_all_gradients():
    """3200 in backward, beside 1000 and 100 for a copy: more than the step's 3200 + 800."""
    found = memory(processes=4, stage=1)
    assert found.gradients == 3200 and found.peak == 1600 + 1600 + 2400 + 1000 + 100 + 3200


def test_a_gib_is_left_for_others():
    found = memory(processes=1)
    assert found.fits(8400 / GIB + 1) and not found.fits(8400 / GIB + 0.99)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("cpu", Machine("cpu", 1, gpu=False)),
        ("gpu", Machine("gpu", 1)),
        ("zero2", Machine("zero2", 8, stage=2, deepspeed=True, to_owner=True)),
        ("zero3", Machine("zero3", 8, stage=3, deepspeed=True)),
        ("zero3-offload", Machine("zero3-offload", 8, 3, deepspeed=True, offload_optimizer=True, offload_weights=True)),
        ("multinode", Machine("multinode", 16, stage=3, deepspeed=True, nodes=2)),  # several machines keep their number
    ],
)
def test_the_shipped_machines(file, expected):
    assert read_machine(f"configs/accelerate/{file}.yaml", 8) == expected


def test_a_machine_keeps_the_devices_of_its_file_unless_told():
    assert read_machine("configs/accelerate/multinode.yaml").processes == 16


def test_deepspeeds_default_bucket_counts(tmp_path):
    (tmp_path / "ds.json").write_text('{"zero_optimization": {"stage": 2}}')
    (tmp_path / "m.yaml").write_text(
        "distributed_type: DEEPSPEED\nnum_processes: 2\n"
        f"deepspeed_config: {{deepspeed_config_file: {tmp_path}/ds.json}}\n"
    )
    assert read_machine(str(tmp_path / "m.yaml")) == Machine("m", 2, stage=2, deepspeed=True, bucket=500_000_000)


def test_an_unreadable_machine_is_one_sentence(tmp_path):
    with pytest.raises(RecipeError, match="there is no such file"):
        read_machine("configs/accelerate/none.yaml")
    (tmp_path / "m.yaml").write_text("distributed_type: [\n")
    with pytest.raises(RecipeError, match="not a readable configuration"):
        read_machine(str(tmp_path / "m.yaml"))
