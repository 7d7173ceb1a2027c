"""DPO starts at ln 2 and KTO at a half, or they do not start; kept reference log-probabilities belong to one model."""

import math

import pytest
import torch
from support.training_cases import Case

from olmoe_ft.model import OlmoeForCausalLM
from olmoe_ft.recipe import RecipeError
from olmoe_ft.training.trainers import trainer_class

FULL, LORA = Case("dpo"), Case("dpo", form="lora")
KTO, KTO_LORA = Case("kto"), Case("kto", form="lora")
USUAL = "lora.init_lora_weights=true"
PRECOMPUTED = "training.precompute_ref_log_probs=true"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No log-probabilities of an earlier test."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize(("case", "overrides"), [
    (FULL, []),
    (FULL, [PRECOMPUTED]),
    (LORA, [USUAL]),
    (LORA, [USUAL, "router.train=lora", "training.loss_type=[sigmoid_norm]"]),
    (LORA, [USUAL, PRECOMPUTED]),
    (LORA, ["lora.init_lora_weights=orthogonal", "lora.experts=false"]),
    (KTO, []),
    (KTO, [PRECOMPUTED]),
    (KTO_LORA, [USUAL]),
    (KTO_LORA, [USUAL, PRECOMPUTED]),
])  # fmt: skip
def test_a_right_reference_passes_and_every_reward_is_0(make_trainer, case, overrides):
    """DPO's loss is then -log sigmoid(beta (0 - 0)) = ln 2, KTO's 1 - sigmoid(beta (0 - 0)) = 1/2."""
    trainer = make_trainer(case, *overrides)
    trainer.train()
    assert trainer.state.global_step == 2
    first = next(record for record in trainer.state.log_history if "loss/task" in record)
    # computed beside other rows, or with factors that are not 0 and whose product is, up to rounding
    near = PRECOMPUTED in overrides or "lora.init_lora_weights=orthogonal" in overrides
    for name in ("rewards/chosen", "rewards/rejected", "rewards/margins"):
        assert abs(first[name]) <= (1e-5 if near else 1e-6)
    assert first["logps/chosen"] < -1  # it is a loss of something
    assert first["loss/task"] == pytest.approx(math.log(2) if case.stage == "dpo" else 0.5, abs=1e-5)


def test_a_compiled_reference_scores_as_the_policy_does(make_trainer):
    """accelerate compiles it before our own `forward` is put back."""
    trainer = make_trainer(FULL, "training.torch_compile=true", "training.torch_compile_backend=eager")
    trainer.train()
    assert trainer.state.global_step == 2


@pytest.mark.parametrize("case", [FULL, KTO], ids=["dpo", "kto"])
def test_the_model_before_sft_as_reference_stops_the_run(make_trainer, case):
    trainer = make_trainer(case)
    torch.manual_seed(1)
    other = OlmoeForCausalLM(trainer.model.config)
    trainer.ref_model.load_state_dict(other.state_dict())
    with pytest.raises(RecipeError, match="the reference is not the model that training starts from.*row 0 is"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_a_reference_that_is_off_by_little_stops_the_run(make_trainer):
    """One weight of one expert, as after a step of training."""
    trainer = make_trainer(FULL)
    with torch.no_grad():
        trainer.ref_model.model.layers[0].mlp.experts.down_proj.add_(1e-4)
    with pytest.raises(RecipeError, match="is not the model that training starts from"):
        trainer.train()


@pytest.mark.parametrize("case", [LORA, KTO_LORA], ids=["dpo", "kto"])
def test_an_adapter_that_is_not_merged_before_stops_the_run(make_trainer, case):
    """TRL #6043: the SFT adapter goes on as the policy, and with adapters off the reference is the model before SFT."""
    trainer = make_trainer(case, USUAL)
    for name, weight in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    with pytest.raises(RecipeError, match="Start from the run of the stage before"):
        trainer.train()


@pytest.mark.parametrize(("case", "column", "answer"), [
    (FULL, "ref_chosen_logps", "chosen"), (KTO, "ref_logps", "(chosen|rejected)"),
], ids=["dpo", "kto"])  # fmt: skip
def test_stale_log_probabilities_stop_the_run(make_trainer, case, column, answer):
    trainer = make_trainer(case, PRECOMPUTED)
    rows = trainer.train_dataset
    shifted = [value + 0.5 for value in rows[column]]
    trainer.train_dataset = rows.remove_columns(column).add_column(column, shifted)
    with pytest.raises(RecipeError, match=f"the {answer} answer of row 0 is -0.05 instead of 0.*were kept from before"):
        trainer.train()


def test_reference_log_probabilities_are_computed_once_for_a_model_its_data_and_its_template(
    make_trainer, tmp_path, monkeypatch
):
    computed = []
    trainer_of = trainer_class("dpo")
    compute = trainer_of.compute_ref_log_probs
    monkeypatch.setattr(
        trainer_of, "compute_ref_log_probs", lambda self, *args: computed.append(1) or compute(self, *args)
    )

    def batches(case, *overrides) -> int:
        computed.clear()
        trainer = make_trainer(case, PRECOMPUTED, *overrides)
        assert {"ref_chosen_logps", "ref_rejected_logps"} <= set(trainer.train_dataset.column_names)
        return len(computed)

    assert batches(FULL) == 32  # 64 pairs, two at a time
    assert batches(FULL) == 0
    assert batches(LORA, USUAL) == 0  # the same start
    assert batches(LORA, "lora.init_lora_weights=gaussian") == 0  # other factors, which the reference does not have
    assert batches(FULL, "training.learning_rate=0.1", "name=other") == 0
    assert batches(FULL, "data.train.0.max_rows=32") == 16
    assert batches(FULL, "training.max_length=32") == 32
    template = tmp_path / "start" / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|user|>", "<|person|>"))
    assert batches(FULL) == 32
    model = OlmoeForCausalLM.from_pretrained(tmp_path / "start")
    with torch.no_grad():
        model.lm_head.weight.mul_(1.01)
    model.save_pretrained(tmp_path / "start")
    assert batches(FULL) == 32
    assert batches(FULL) == 0
