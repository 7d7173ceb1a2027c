"""A step on fake tensors beside the same step on real ones, which torch's profiler watches."""

import json
import os
from contextlib import chdir
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support import REPOSITORY
from support.peak_memory import predict, run_case, settings_of, write_inputs
from torch._subclasses.fake_tensor import FakeTensorMode

from olmoe_ft.model import OlmoeConfig
from olmoe_ft.model.experts.autograd import grouped_experts
from olmoe_ft.planning.live_bytes import LiveBytes
from olmoe_ft.planning.measured_step import Batch, measure_step
from olmoe_ft.planning.stand_ins import as_on_a_gpu
from olmoe_ft.planning.step_memory import StepMemory
from olmoe_ft.recipe import RecipeError, load_recipe
from olmoe_ft.training.arguments import training_arguments
from olmoe_ft.training.run_directory import RunDirectory

TINY = OlmoeConfig.from_json_file("configs/model/olmoe_tiny.json")
SMALL = Batch(4, 32)
CPU = "configs/accelerate/cpu.yaml"
LORA = ("lora={r: 8, alpha: 8, attention: true, experts: true}", "router.train=frozen")


def step_of(recipe: str, *overrides: str, batch=SMALL, config=TINY, gpu=False) -> StepMemory:
    loaded = load_recipe(f"recipes/tiny/{recipe}.yaml", overrides)
    return measure_step(loaded, config, training_arguments(loaded, RunDirectory(loaded)), batch, gpu)


def test_live_bytes_follow_what_is_made_and_freed():
    """Two of 4,000 bytes alive at once, a view and an operation in place add nothing."""
    with LiveBytes() as live:
        one = torch.zeros(1000)
        two = one + 1
        two.view(10, 100).add_(1)
        assert (live.now, live.peak) == (8000, 8000)
        del one
        assert (live.now, live.peak) == (4000, 8000)
        live.peak = live.now
        two = two * 2  # the old one is freed when the new one is there
        assert (live.now, live.peak) == (4000, 8000)


def test_static_parts_are_counted_by_hand():
    """1,976,448 fp32 parameters: weights and gradients 4 bytes each, AdamW's two moments 8, and 47 step counters."""
    step = step_of("sft")
    assert (step.weights, step.gradients, step.adapters, step.reference) == (4 * 1_976_448, 4 * 1_976_448, 0, 0)
    assert step.optimizer == 8 * 1_976_448 + 4 * 47 and step.trained == 1_976_448
    assert step.peak >= step.weights + step.gradients + step.optimizer and 0 < step.head < step.working


def test_bf16_halves_them():
    step = step_of("sft", "model.dtype=bfloat16")
    assert (step.weights, step.gradients, step.itemsize) == (2 * 1_976_448, 2 * 1_976_448, 2)


def test_adapters_alone_have_gradients_and_states():
    """Rank 8 a layer: attention 4 matrices of 128 x 128; experts 16 of 128 -> 128 and 64 -> 128."""
    layer = 4 * 8 * (128 + 128) + 16 * 8 * ((128 + 128) + (64 + 128))
    step = step_of("sft", *LORA)
    assert step.trained == 4 * layer and step.adapters == step.gradients == 4 * 4 * layer
    assert step.weights == 4 * 1_976_448


@pytest.mark.parametrize("stage", ["dpo", "kto"])
def test_a_reference_is_kept_only_where_all_weights_train_and_no_log_probabilities_are_kept(stage):
    start = ("model.path=null", "model.config=x", "model.tokenizer=y")
    assert step_of(stage, *start).reference == 4 * 1_976_448
    assert step_of(stage, *start, "training.precompute_ref_log_probs=true").reference == 0
    assert step_of(stage, *start, *LORA).reference == 0


def test_an_estimate_keeps_nothing_and_counts_where_its_rows_are_longer():
    """Its passes have no gradient: beside a step they need less than the step, until their rows are far longer."""
    alone = (None, 32, 2048)
    peaks = [step_of("kto", batch=Batch(2, 32, laid=32, forward_alone=length)).working for length in alone]
    assert peaks[0] == peaks[1] < peaks[2]


def test_checkpointing_and_its_absence_are_both_measured():
    plain = step_of("sft", batch=Batch(16, 128))
    checkpointed = step_of("sft", "training.gradient_checkpointing=true", batch=Batch(16, 128))
    assert plain.working == checkpointed.working_otherwise > checkpointed.working == plain.working_otherwise
    assert plain.peak > checkpointed.peak and plain.otherwise() == checkpointed and checkpointed.otherwise() == plain


@pytest.mark.parametrize(
    ("trained", "kept", "expected"),
    [(False, False, 1536), (True, False, 1536 + 128), (False, True, 2560), (True, True, 2560 + 128)],
)
def test_the_experts_backward_pass_by_hand(trained, kept, expected):
    """On a GPU, 512 tokens that go to 8 of 8 experts of H = 128 and I = 64, in bf16; in KiB.

    R = 4,096 rows: (R, H) and (R, 2I) are 1,024 each, (R, I) is 512. There are dy, what its product gives and h takes
    the place of, and beside them the gradient of what was kept, unless that takes its place: 1,536 or 2,560. Then the
    gradient of `down`, 128. What comes after is less: the rows or their gradient, both weights' gradients (384) and dx
    (128). Three numbers a row are 24.
    """
    live = LiveBytes()
    with FakeTensorMode(), live, as_on_a_gpu():
        stacks = [
            torch.empty(shape, dtype=torch.bfloat16).requires_grad_(trained) for shape in ((8, 128, 128), (8, 128, 64))
        ]
        module = SimpleNamespace(
            gate_up_proj=stacks[0], down_proj=stacks[1], act_fn=torch.nn.SiLU(), low_rank_factors={}
        )
        x, weights = (torch.empty(512, width, dtype=torch.bfloat16, requires_grad=True) for width in (128, 8))
        y = grouped_experts(module, x, torch.zeros(512, 8, dtype=torch.long), weights)
        gradient = torch.empty_like(y)
        before = live.peak = live.now
        y.backward(gradient, retain_graph=kept)
    assert live.peak - before == (expected + 24) * 1024


def test_on_a_gpu_the_head_works_in_place():
    """In bf16 the CPU's head makes fp32 copies of hidden states, weights and tiles; nothing else changes."""
    on_cpu, on_gpu = (step_of("sft", "model.dtype=bfloat16", batch=Batch(16, 128), gpu=gpu) for gpu in (False, True))
    assert on_gpu.head < on_cpu.head and on_gpu.weights == on_cpu.weights and on_gpu.optimizer == on_cpu.optimizer


def test_an_optimizer_that_looks_at_values_is_one_sentence():
    with pytest.raises(RecipeError, match="training.optim: found adamw_8bit, which cannot be planned"):
        step_of("sft", "training.optim=adamw_8bit")


def test_other_optimizers_have_other_states():
    """SGD without momentum has none."""
    assert step_of("sft", "training.optim=sgd").moments == 0


def test_four_bit_weights_count_as_such():
    """Of the frozen weights of attention and experts 4.127 bits stay; a stack is unpacked while it is used."""
    packed = step_of("sft", *LORA, "model.quantization=nf4")
    plain = step_of("sft", *LORA)
    attention, experts = 4 * 4 * 128 * 128, 4 * 16 * 3 * 128 * 64
    assert plain.weights - packed.weights == pytest.approx((attention + experts) * (4 - 4.127 / 8), abs=1)
    assert packed.working == plain.working + 4 * 16 * 2 * 64 * 128


def test_the_released_network_on_a_laptop():
    """Two layers of it, each of 64 experts, attention, router and norms; embeddings, head and the last norm."""
    layer = 64 * 3 * 2048 * 1024 + 4 * 2048 * 2048 + 64 * 2048 + 4 * 2048
    values = json.loads(Path("configs/model/olmoe_1b_7b.json").read_text())
    config = OlmoeConfig(**values | {"num_hidden_layers": 2})
    checkpointed = ("model.dtype=bfloat16", "training.gradient_checkpointing=true")
    step = step_of("sft", *checkpointed, batch=Batch(1, 512), config=config)
    assert step.trained == 2 * layer + 2 * 50_304 * 2048 + 2048 and step.weights == 2 * step.trained
    assert step.largest_layer == 2 * layer


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("recipes/tiny/sft.yaml", ()),
        ("recipes/tiny/dpo.yaml", LORA),
        ("recipes/tiny/kto.yaml", ()),
    ],
)
def test_prediction_and_measurement_agree_within_a_tenth(tmp_path, monkeypatch, recipe, overrides):
    """One row of the table in docs/planning.md each; `python benchmarks/planning.py` has all."""
    for name in ("recipes", "configs", "data"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    monkeypatch.setitem(os.environ, "KINETO_LOG_LEVEL", "99")
    with chdir(tmp_path):
        write_inputs()
        settings = settings_of("tiny", recipe, overrides)
        assert predict(recipe, CPU, settings) == pytest.approx(run_case(recipe, CPU, settings), rel=0.1)
