"""A LoRA run stops when a factor has no gradient in the first step, or when a frozen weight has changed."""

import pytest
import torch
from support.training_cases import Case, without_answers_at_first
from transformers import TrainerCallback

from olmoe_ft.recipe import RecipeError
from olmoe_ft.training.adapter_checks import AdapterChecks, hash_of

LORA = Case(form="lora")
USUAL = "lora.init_lora_weights=true"  # the cases begin with both factors random


def checks(trainer) -> AdapterChecks:
    return next(callback for callback in trainer.callback_handler.callbacks if isinstance(callback, AdapterChecks))


@pytest.mark.parametrize("checkpointing", ["none", "reentrant", "non_reentrant"])
@pytest.mark.parametrize("init", ["true", "gaussian", "false"])
@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_a_right_adapter_passes_and_the_initialisation_says_who_is_asked(make_trainer, stage, init, checkpointing):
    """2 layers x (4 attention + 2 experts) = 12 pairs of factors; where B starts at 0 only B has a first gradient."""
    trainer = make_trainer(Case(stage, form="lora", checkpointing=checkpointing), f"lora.init_lora_weights={init}")
    trainer.train()
    found = checks(trainer)
    assert found.learns and not found.silent
    assert len(found.asked) == (24 if init == "false" else 12)
    assert all("lora_B" in name for name in found.asked) == (init != "false")


@pytest.mark.parametrize(
    "part", ["mlp.experts.lora_B", "layers.1.self_attn.q_proj.lora_B", "experts.base_layer.lora_B"]
)
def test_a_factor_without_a_gradient_stops_the_run_and_is_named(make_trainer, part):
    trainer = make_trainer(LORA, USUAL)
    for name, module in trainer.model.named_modules():
        if name.endswith(part.removesuffix(".lora_B")) and hasattr(module, "lora_B"):
            module.lora_B["default"].weight.register_hook(torch.zeros_like)  # comes before the check's own
    with pytest.raises(RecipeError, match=rf"\d of 12 factors got no gradient.*{part}"):
        trainer.train()
    assert trainer.state.global_step == 1


def test_experts_whose_adapter_is_left_out_are_found(make_trainer):
    """What a back end does that has never heard of adapters."""
    trainer = make_trainer(LORA, USUAL)
    for layer in trainer.backbone.layers:
        layer.mlp.experts.get_base_layer().low_rank_factors = Forgetful()
    with pytest.raises(RecipeError, match="4 of 12 factors got no gradient.*does not use this adapter"):
        trainer.train()


class Forgetful(dict):
    def get(self, key, default=None):
        return default


def test_a_step_without_answers_is_not_judged(make_trainer):
    trainer = make_trainer(LORA, USUAL, "router.load_balancing_coef=0", "router.z_loss_coef=0")
    without_answers_at_first(trainer)
    trainer.train()
    assert trainer.state.global_step == 2 and checks(trainer).learns


def test_a_changed_base_weight_stops_the_run_before_anything_is_saved(make_trainer):
    """The last bit of one number of one expert."""

    class Meddler(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            weight = dict(model.named_parameters())[NAME]
            weight.data.view(torch.int32)[3, 1, 2] ^= 1

    trainer = make_trainer(LORA, USUAL, "training.max_steps=1")
    trainer.add_callback(Meddler())
    with pytest.raises(RuntimeError, match=f"frozen weights have changed during training .here .'{NAME}'"):
        trainer.train()


def test_resumed_after_its_last_step_or_while_b_is_still_zero_a_run_goes_on(make_trainer):
    """Step 1 of a warm-up has learning rate 0: the checkpoint after it has B at 0, and no gradient comes to A. The run
    is an epoch of 16 rows, 8 a step."""
    saving = (USUAL, "training.save_strategy=steps", "training.save_steps=1", "training.warmup_steps=1")
    saving += ("training.lr_scheduler_type=constant_with_warmup",)
    saving += ("training.max_steps=-1", "training.num_train_epochs=1", "data.train.0.max_rows=16")
    make_trainer(LORA, *saving).train()
    for step in (1, 2):
        trainer = make_trainer(LORA, *saving)
        checkpoint = f"{trainer.args.output_dir}/checkpoint-{step}"
        trainer.train(resume_from_checkpoint=checkpoint)
        assert trainer.state.global_step == 2 and checks(trainer).learns == (step == 1)


def test_the_hash_of_bits_by_hand():
    """Words of 64 bits where they fit; numbers that exclude each other as bytes stand at different places of a word."""
    bits = torch.zeros(16, dtype=torch.uint8)
    assert hash_of(bits) == 0
    bits[0] = bits[1] = 3
    assert hash_of(bits) == 0x0303
    bits[8] = 1  # of the second word
    assert hash_of(bits) == 0x0302
    assert hash_of(bits[8:]) == hash_of(bits[4:12]) == 1  # a word of 64, two of 32
    assert hash_of(bits[:9]) == 3 ^ 3 ^ 1  # bytes
    weight = torch.tensor([[1.0, -2.0], [0.5, 0.0]], dtype=torch.bfloat16)  # 0x3F80, 0xC000, 0x3F00, 0
    assert hash_of(weight) == 0x3F00C0003F80
    assert hash_of(weight.t()) == 0xC0003F003F80
    assert hash_of(weight[0]) == 0xC0003F80 - 2**32  # a word of 32 is widened with its sign


NAME = "base_model.model.model.layers.1.mlp.experts.base_layer.base_layer.down_proj"
