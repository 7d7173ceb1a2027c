"""Seconds of a step: operations and bytes by hand, and which shape is named the fastest."""

from dataclasses import replace
from io import StringIO
from itertools import product

import pytest
from rich.console import Console

from olmoe_ft.constants import GIB
from olmoe_ft.model import OlmoeConfig
from olmoe_ft.model.size import adapter_parameters_per_token, recomputed_flops_per_token, training_flops_per_token
from olmoe_ft.planning.machine import Machine
from olmoe_ft.planning.plan import make_plans
from olmoe_ft.planning.shapes import print_shapes, shapes_by_speed
from olmoe_ft.planning.step_memory import StepMemory
from olmoe_ft.planning.time import Rates, Work, host_traffic, optimizer_bytes, step_time, traffic, work_of
from olmoe_ft.recipe import load_recipe
from olmoe_ft.stages import Forwards
from olmoe_ft.training.arguments import training_arguments
from olmoe_ft.training.run_directory import RunDirectory

# One layer, H = 4, I = 2, 3 experts of which 2 work, vocabulary 5; one head of keys for two of queries.
# A token's weights: q and o 32, k and v 2 x 4 x 2 = 16, router 12, experts 2 x 3 x 8 = 48: 108; head 20.
NETWORK = OlmoeConfig(
    hidden_size=4, intermediate_size=2, num_experts=3, num_experts_per_tok=2, num_hidden_layers=1,
    num_attention_heads=2, num_key_value_heads=1, vocab_size=5, eos_token_id=2, pad_token_id=1,
)  # fmt: skip

# 800 parameters of 2 bytes, all trained, two moments in 2 bytes
FULL = StepMemory(
    weights=1600,
    adapters=0,
    trained=800,
    itemsize=2,
    largest_layer=400,
    largest_gradient=100,
    gradients=1600,
    optimizer=3200,
    moments=1600,
    reference=0,
    working=1000,
    working_otherwise=5000,
    recomputes=True,
    kept=0,
    evaluation=0,
    head=300,
    peak=8400,
    peak_otherwise=9000,
)
LORA = replace(FULL, adapters=20, trained=10, largest_gradient=4, gradients=20, optimizer=40, moments=20)
WORK = Work(tokens=10, micro_batches=3, flops=5, recomputed=2, forwards=Forwards())
DPO = replace(WORK, forwards=Forwards(reference=1))
KTO = replace(WORK, forwards=Forwards(policy=1, reference=2))


def test_operations_of_a_token():
    """Trained 6 x 128, frozen 4 x 128; a reference 2 x 128 more; recomputed all but the head."""
    assert training_flops_per_token(NETWORK) == 768
    assert training_flops_per_token(NETWORK, reference=1) == 768 + 256
    assert recomputed_flops_per_token(NETWORK) == 2 * 108
    # rank 1: q and o 2 x (4 + 4), k and v 2 x (4 + 2); 2 experts x ((4 + 4) + (2 + 4))
    assert adapter_parameters_per_token(NETWORK, 1, attention=True, experts=False) == 28
    assert adapter_parameters_per_token(NETWORK, 3, attention=True, experts=True) == 3 * (28 + 28)
    assert training_flops_per_token(NETWORK, factors=56, reference=1) == 512 + 336 + 256
    assert recomputed_flops_per_token(NETWORK, factors=56) == 2 * (108 + 56)
    # KTO's estimate: the policy forward once more, with its adapters, and the reference twice
    assert training_flops_per_token(NETWORK, policy=1, reference=2) == 768 + 256 + 2 * 256
    assert training_flops_per_token(NETWORK, factors=56, policy=1, reference=2) == 512 + 336 + 2 * (128 + 56) + 2 * 256


def test_work_of_a_recipe():
    """The released network's 1,178,861,568 weights of a token; DPO's reference unless its results are kept."""
    weights, start = 1_178_861_568, "recipes/olmoe-1b-7b-0924/"

    def work(file, *overrides):
        (plan,) = make_plans(load_recipe(start + file, overrides))
        return work_of(plan.recipe, plan.config, plan.arguments, 100)

    assert work("sft/full.yaml").flops == 6 * weights and work("sft/full.yaml").forwards == Forwards()
    assert work("dpo/full.yaml").flops == 8 * weights and work("dpo/full.yaml").forwards == Forwards(reference=1)
    assert work("dpo/full.yaml").micro_batches == 4
    kept = work("dpo/full.yaml", "training.precompute_ref_log_probs=true")
    assert kept.flops == 6 * weights and kept.forwards == Forwards()
    # 16 layers, rank 16: attention 8 x 2048; 8 experts x ((2048 + 2 x 1024) + (1024 + 2048))
    factors = 16 * 16 * (8 * 2048 + 8 * 7168)
    assert work("sft/lora.yaml").flops == 4 * weights + 6 * factors


@pytest.mark.parametrize(
    ("overrides", "forwards", "flops"),
    [
        # the policy again for its estimate, and the reference for the rows and for the estimate
        ((), Forwards(1, 2), 768 + 256 + 512),
        (("training.precompute_ref_log_probs=true",), Forwards(1, 0), 768 + 256),
        (("training.loss_type=apo_zero_unpaired",), Forwards(0, 1), 768 + 256),
        (("training.loss_type=apo_zero_unpaired", "training.precompute_ref_log_probs=true"), Forwards(), 768),
        # rank 1: 56 weights of factors, as above
        (("lora={r: 1, alpha: 1, attention: true, experts: true}",), Forwards(1, 2), 512 + 336 + 2 * 184 + 512),
    ],
)
def test_work_of_kto(overrides, forwards, flops):
    """Operations of a token of the network above, of 128 weights."""
    recipe = load_recipe("recipes/tiny/kto.yaml", overrides)
    found = work_of(recipe, NETWORK, training_arguments(recipe, RunDirectory(recipe)), 100)
    assert (found.forwards, found.flops) == (forwards, flops)


def machine(stage=0, processes=4, **settings):
    return Machine("m", processes, stage=stage, **settings)


def test_traffic():
    """G = W = 1600 bytes, 4 devices, 3 micro-batches: an all-reduce is 2 x 1600 x 3/4 = 2400, a gather 1200."""
    assert traffic(FULL, machine(stage=0), WORK) == 2400
    assert traffic(FULL, machine(stage=2), WORK) == 3 * 2400 + 1200
    assert traffic(FULL, machine(stage=1), WORK) == 2400 + 1200
    assert traffic(FULL, machine(stage=2, to_owner=True), WORK) == 3 * 1600 + 1200
    assert traffic(FULL, machine(stage=3), WORK) == 3 * 3 * 1200
    assert all(traffic(FULL, machine(stage, 1, to_owner=True), WORK) == 0 for stage in range(4))


def test_traffic_of_a_reference_and_of_adapters():
    """ZeRO-3 gathers whatever runs, three passes of 1620 bytes with adapters; others send what is trained alone."""
    own = replace(FULL, reference=1600)
    assert traffic(own, machine(stage=3), DPO) == 3 * 4 * 1200
    assert traffic(own, machine(stage=2), DPO) == traffic(FULL, machine(stage=2), WORK)
    assert traffic(LORA, machine(stage=3), DPO) == 3 * (3 * 1620 + 20) * 0.75
    assert traffic(LORA, machine(stage=2), DPO) == 3 * 30 + 15


def test_traffic_of_an_estimate():
    """W for forward, backward and KTO's estimate, R for the rows and the estimate, G; with adapters R is W."""
    own = replace(FULL, reference=1000)
    assert traffic(own, machine(stage=3), KTO) == 3 * (3 * 1600 + 2 * 1000 + 1600) * 0.75
    assert traffic(LORA, machine(stage=3), KTO) == 3 * (5 * 1620 + 20) * 0.75
    assert traffic(own, machine(stage=2), KTO) == traffic(FULL, machine(stage=2), WORK)
    both = machine(stage=3, offload_weights=True)
    assert host_traffic(own, both, KTO) == 3 * (3 * 400 + 2 * 250)


def test_what_offloading_moves():
    """A device's quarter of 1600 bytes: gradients three times out, weights once in; two gathers, three times."""
    assert host_traffic(FULL, machine(stage=3), WORK) == 0
    assert host_traffic(FULL, machine(stage=3, offload_optimizer=True), WORK) == 4 * 400
    both = machine(stage=3, offload_optimizer=True, offload_weights=True)
    assert host_traffic(FULL, both, WORK) == 4 * 400 + 6 * 400


def test_bytes_of_an_update():
    """14 a weight in bf16; under ZeRO 24 for three fp32 states, 2 + 4 + 4 for the gradient, 2 for the weight."""
    assert optimizer_bytes(FULL, machine(stage=0)) == 14 * 800
    assert optimizer_bytes(FULL, machine(stage=2)) == 36 * 800 / 4


def test_a_step_is_the_sum_of_its_parts():
    rates = Rates(flops=100, link=1200, network=600, memory=3600, host=800)
    found = step_time(FULL, machine(stage=2, to_owner=True), WORK, rates)
    # 3 x 10 tokens x 7 operations; 6000 bytes; 7200 bytes
    assert (found.compute, found.traffic, found.optimizer) == (pytest.approx(2.1), 5, 2)
    assert found.seconds == pytest.approx(9.1) and found.tokens_per_second == pytest.approx(120 / 9.1)
    once = step_time(replace(FULL, recomputes=False), machine(stage=2, to_owner=True), WORK, rates)
    assert once.compute == pytest.approx(1.5)
    assert step_time(FULL, machine(stage=2, to_owner=True, nodes=2), WORK, rates).traffic == 10
    # 10,800 bytes to others, 1600 to the host, which also updates
    offloaded = step_time(FULL, machine(stage=3, offload_optimizer=True), WORK, rates)
    assert (offloaded.traffic, offloaded.optimizer) == (9 + 2, 9)


MACHINES = [
    Machine("m", processes, stage=stage, nodes=nodes, to_owner=to_owner, offload_optimizer=away, offload_weights=away)
    for processes, stage, nodes, to_owner, away in product((1, 2, 8), (0, 2, 3), (1, 2), (False, True), (False, True))
]


@pytest.mark.parametrize("step", [FULL, LORA, replace(FULL, reference=1600)])
@pytest.mark.parametrize("work", [WORK, DPO, KTO, replace(DPO, micro_batches=1)])
def test_what_must_hold_for_every_machine(step, work):
    """More bandwidth is never slower, checkpointing never faster, and ZeRO-3 never sends less than ZeRO-2."""
    slow, fast = Rates.of(100, 10), Rates.of(100, 20)
    for one in MACHINES:
        assert step_time(step, one, work, fast).seconds <= step_time(step, one, work, slow).seconds
        with_checkpointing = step_time(step, one, work, slow)
        assert with_checkpointing.seconds > step_time(replace(step, recomputes=False), one, work, slow).seconds
        if one.stage == 2:
            assert traffic(step, replace(one, stage=3), work) >= traffic(step, one, work)


def test_rates_that_are_named_take_the_place_of_those_assumed():
    one, several = machine(), machine(nodes=2)
    assumed, named = Rates.of(None, None), Rates.of(100, 25)
    assert assumed == Rates() and assumed.between(one) > assumed.between(several)
    assert named.flops == 100e12 and named.between(one) == named.between(several) == 25e9


def shown(budget, rates, chosen, checkpointing=True):
    """What is printed of ZeRO-2 and ZeRO-3 on 4 devices and of one device; sizes in GiB."""
    sizes = ("weights", "largest_layer", "largest_gradient", "gradients", "optimizer", "working", "working_otherwise")
    step = replace(
        FULL, **{name: getattr(FULL, name) * GIB for name in (*sizes, "peak", "peak_otherwise")}, trained=800 * GIB
    )
    step = replace(step, moments=1600 * GIB)
    machines = [Machine("zero3", 4, stage=3), Machine("zero2", 4, stage=2), Machine("gpu", 1)]
    shapes = shapes_by_speed(step, machines, WORK, rates)
    console = Console(file=StringIO(), width=200)
    print_shapes(console, shapes, budget, rates, machines[chosen], checkpointing)
    return [(shape.machine.name, shape.checkpointing) for shape in shapes], console.file.getvalue()


def test_the_fastest_that_fits_is_named():
    """Four devices that send quickly beat one. Peaks by test_memory's formulas: ZeRO-2 without checkpointing
    1600 + 2400 + 5000 + 100 + 400 = 9500 GiB, with it 5500; ZeRO-3 without it 400 + 2400 + 400 + 5000 + 2 = 7802."""
    quick = Rates(flops=1, link=1e30)
    order, text = shown(10_000, quick, chosen=0)
    assert order[:2] == [("zero3", False), ("zero2", False)] and order[-1] == ("gpu", True)
    assert "fastest that fits: zero3 x 4 without checkpointing" in text
    assert "s a step (training.gradient_checkpointing=false)" in text
    slow = Rates(flops=1e30, link=1e9)  # now one device is the fastest, then those that send least
    order, text = shown(8_500, slow, chosen=0)
    assert [name for name, _ in order] == ["gpu", "gpu", "zero2", "zero2", "zero3", "zero3"]
    # 8400 and without checkpointing 9000
    assert "fastest that fits: gpu x 1 with checkpointing" in text and "(configs/accelerate/gpu.yaml)" in text
    _, text = shown(6_000, slow, chosen=1)
    assert "fastest that fits: zero2 x 4 with checkpointing" in text and ", as planned" in text
    _, text = shown(6_000, slow, chosen=0, checkpointing=False)
    named = "(configs/accelerate/zero2.yaml, --num_processes 4, training.gradient_checkpointing=true)"
    assert named in text
    assert "fastest that fits" not in shown(100, slow, chosen=0)[1]
