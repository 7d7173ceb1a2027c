"""Which optimizer trains what, how micro-batches are summed for it, and the share of weights that move."""

import os
import subprocess
import sys

import pytest
import torch
from support.training_cases import Case
from torch import nn
from transformers import TrainerCallback

from olmoe_ft.training.optimizer.adamw import Bf16AdamW
from olmoe_ft.training.optimizer.moved import MovedCallback
from olmoe_ft.training.optimizer.sums import GradientSums

BF16 = ("model.dtype=bfloat16", "training.optim=null", "tracking.wandb='off'")


class Kept(TrainerCallback):
    """The shares of the records, which callbacks add to after the trainer has put its own copy away."""

    def __init__(self) -> None:
        self.shares: list[float] = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.shares += [logs["optim/moved"]] if "loss" in logs else []


def shares(trainer) -> list[float]:
    trainer.add_callback(kept := Kept())
    trainer.train()
    return kept.shares


def test_bf16_weights_get_our_optimizer_and_move_as_fp32_ones(make_trainer):
    """DPO's learning rate of 5e-7, where torch's AdamW left 99.8% of bf16 weights as they were.

    What moves in fp32 moves here; the rest is embeddings that no row has, and experts that no token chose.
    """
    moved = {}
    for dtype in ("bfloat16", "float32"):
        trainer = make_trainer(
            Case("dpo"), *BF16[1:], f"model.dtype={dtype}", "training.learning_rate=5e-7", "training.logging_steps=1"
        )
        moved[dtype] = shares(trainer)
        assert isinstance(trainer.optimizer.optimizer, Bf16AdamW) == (dtype == "bfloat16")
    assert len(moved["float32"]) == 2 and moved["float32"][-1] > 0.5
    assert moved["bfloat16"][-1] == pytest.approx(moved["float32"][-1], abs=0.02)


def test_adapters_and_a_full_router(make_trainer):
    """Factors are fp32, the routers bf16: the optimizer holds both."""
    trainer = make_trainer(Case("sft", "lora"), *BF16, "router.train=full")
    trainer.train()
    optimizer = trainer.optimizer.optimizer
    assert isinstance(optimizer, Bf16AdamW)
    kinds = {weight.dtype: set(optimizer.state[weight]) for weight in optimizer.state}
    assert kinds[torch.float32] == {"step", "exp_avg", "exp_avg_sq"}
    assert kinds[torch.bfloat16] == {"step", "remainder", "moments", "exponents"}


def test_adapters_alone_keep_the_usual_optimizer(make_trainer):
    trainer = make_trainer(Case("sft", "lora"), *BF16, "router.train=frozen", "router.load_balancing_coef=0.0")
    assert not isinstance(trainer.create_optimizer(), Bf16AdamW)


def test_lost_updates_are_warned_of(make_trainer, capsys):
    """fp32 weights of 0.02 have last bits of 2e-9: at 1e-13 nothing moves, and the run says so, once."""
    trainer = make_trainer(
        Case(), "training.learning_rate=1e-13", "training.logging_steps=1", "training.weight_decay=0"
    )
    assert max(shares(trainer)) < 0.01
    assert capsys.readouterr().out.count("of the trained weights changed") == 1


def test_a_learning_rate_of_0_is_not_warned_of(make_trainer, capsys):
    """The first step of a warmup has it."""
    trainer = make_trainer(Case(), "training.learning_rate=0.0", "training.logging_steps=1")
    assert shares(trainer) == [0, 0]
    assert "of the trained weights changed" not in capsys.readouterr().out


def test_the_sample_is_as_much_of_each_weight_as_of_all(make_trainer):
    trainer = make_trainer(Case())
    trainer.create_optimizer()
    callback = next(each for each in trainer.callback_handler.callbacks if isinstance(each, MovedCallback))
    callback.on_train_begin(trainer.args, trainer.state, trainer.control)
    counts = [len(read()) for read in callback.sample]
    sizes = [weight.numel() for weight in trainer.model.parameters() if weight.requires_grad]
    assert len(counts) == len(sizes) and all(0 < count <= size for count, size in zip(counts, sizes, strict=True))


def micro_batches(count: int = 32):
    """Gradients of 1, and then of 2^-9 parts of it, which bf16 sums would lose one by one."""
    yield torch.ones(4)
    for _ in range(count - 1):
        yield torch.full((4,), 2.0**-9)


def summed(last=None) -> torch.Tensor:
    weight = nn.Parameter(torch.zeros(4, dtype=torch.bfloat16))
    gradients = list(micro_batches())
    at = {"last": False}
    if last is not None:
        GradientSums([weight], lambda: at["last"])
    for number, gradient in enumerate(gradients, start=1):
        at["last"] = number == len(gradients)
        (weight * gradient.bfloat16()).sum().backward()
    return weight.grad


def test_micro_batches_are_summed_in_fp32():
    """1 + 31 x 2^-9 = 1.0605, in bf16 1.0625; autograd's sums in bf16 stay at 1, since 2^-9 is half of 1's last bit."""
    assert summed().tolist() == [1.0] * 4
    assert summed(last=True).tolist() == [1.0625] * 4


class Gradients(TrainerCallback):
    """What a step's optimizer is given."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.seen = {name: weight.grad.float().clone() for name, weight in model.named_parameters()}


def test_a_step_is_the_same_for_any_accumulation(make_trainer):
    """One micro-batch of four rows, or four of one: the same gradient of every weight, to bf16's rounding."""
    seen = []
    for rows, steps in ((4, 1), (1, 4)):
        trainer = make_trainer(
            Case(rows=4, micro_batches=1, coefficient=0.0),
            *BF16,
            f"training.per_device_train_batch_size={rows}",
            f"training.gradient_accumulation_steps={steps}",
            "training.max_steps=1",
        )
        trainer.add_callback(kept := Gradients())
        trainer.train()
        seen.append(kept.seen)
    for name, whole in seen[0].items():
        assert (seen[1][name] - whole).norm() <= 0.05 * whole.norm(), name


def test_what_a_broken_attempt_left_does_not_count():
    weight = nn.Parameter(torch.zeros(4, dtype=torch.bfloat16))
    last = {"now": False}
    sums = GradientSums([weight], lambda: last["now"])
    (weight * 100).sum().backward()  # and then the GPU's memory is full
    sums.on_train_begin(None, None, None)
    last["now"] = True
    weight.sum().backward()
    assert weight.grad.tolist() == [1.0] * 4
    sums.on_pre_optimizer_step(None, None, None)


def test_a_sum_that_would_stay_behind_stops_the_step():
    """Two weights, of which the last micro-batch has one alone."""
    one, other = (nn.Parameter(torch.zeros(4, dtype=torch.bfloat16)) for _ in range(2))
    last = {"now": False}
    sums = GradientSums([one, other], lambda: last["now"])
    (one + other).sum().backward()
    last["now"] = True
    one.sum().backward()
    with pytest.raises(AssertionError, match="its sum would be lost"):
        sums.on_pre_optimizer_step(None, None, None)


WORKER = """
import torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from olmoe_ft.training.optimizer.sums import GradientSums
dist.init_process_group("gloo")
layer = torch.nn.Linear(4, 1, bias=False, dtype=torch.bfloat16)
parallel, at = DistributedDataParallel(layer), {"last": False}
GradientSums(layer.parameters(), lambda: at["last"])
for step in range(2):
    for number in range(32):
        at["last"] = number == 31
        gradient = 1.0 if number == 0 else 2.0**-9
        with torch.enable_grad() if at["last"] else parallel.no_sync():
            parallel(torch.full((1, 4), gradient * (1 + 2 * dist.get_rank())).bfloat16()).sum().backward()
    if dist.get_rank() == 0:
        print(layer.weight.grad.tolist())
    layer.weight.grad = None
"""


def test_micro_batches_under_data_parallel(tmp_path):
    """Two processes, the second with three times the gradients: the mean of their sums, 2 x 1.0625, in both steps."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert result.stdout.split("\n")[:2] == ["[[2.125, 2.125, 2.125, 2.125]]"] * 2, result.stderr[-2000:]


def test_a_resumed_run_ends_at_the_same_bits(make_trainer):
    """Through transformers' checkpoint on disk: two steps, and the second one again from the first one's checkpoint."""
    saving = ("training.save_strategy=steps", "training.save_steps=1", "training.gradient_accumulation_steps=2")
    whole = make_trainer(Case(), *BF16, *saving)
    whole.train()
    resumed = make_trainer(Case(), *BF16, *saving)
    resumed.train(resume_from_checkpoint=f"{resumed.args.output_dir}/checkpoint-1")
    assert resumed.state.global_step == 2
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        states = [trainer.optimizer.optimizer.state[weight] for trainer, weight in ((whole, one), (resumed, other))]
        assert torch.equal(one, other) and states[0]["step"] == states[1]["step"] == 2
        for name in ("remainder", "moments", "exponents"):
            assert torch.equal(states[0][name], states[1][name]), name
