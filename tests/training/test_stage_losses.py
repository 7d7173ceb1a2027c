"""What the planner runs is what is trained: each stage's loss beside TRL's, and what its reference sees."""

import pytest
import torch
from support.training_cases import Case

from olmoe_ft.stages import STAGES


@pytest.mark.parametrize("name", STAGES)
def test_the_scored_loss_is_trls(make_trainer, name):
    """Of TRL's default loss type, where every target is a label; with a reference, which has moved away.

    Of KTO: rows that are all good, since the planner knows no labels, and an estimate of 0, as before the first step.
    """
    trainer = make_trainer(Case(name))
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(3)])
    trainer.model.eval()
    stage, labels = STAGES[name], batch.get("labels")
    if "label" in batch:
        batch["label"] = torch.ones_like(batch["label"])
    if labels is None:
        labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
        with torch.no_grad():
            trainer.ref_model.lm_head.weight.mul_(1.5)

    def scored(network):
        with torch.no_grad():
            return network(input_ids=batch["input_ids"], labels=labels, fused_lm_head=True, packed=batch.get("packed"))

    with torch.no_grad():
        expected = trainer.compute_loss(trainer.model, dict(batch))
    scores = scored(trainer.model)
    reference = scored(trainer.ref_model).log_probs if stage.has_reference else None
    if not stage.has_reference:  # a mean over the labels alone
        scores.log_probs = scores.log_probs[scores.label_mask]
    found = stage.scored_loss(scores.log_probs, reference, trainer.args)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_reference_computed_before_training_sees_the_packed_rows(make_trainer, monkeypatch):
    """As the policy does: no padding, a shared prompt once; TRL's own head would have run on the padded rows."""
    from olmoe_ft.model import OlmoeModel

    seen, forward = [], OlmoeModel.forward

    def counting(self, *args, **kwargs):
        seen.append(kwargs["input_ids"])
        assert "packed" not in kwargs and kwargs.get("cu_seq_lens_q") is not None
        return forward(self, *args, **kwargs)

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", "cache")  # none that an earlier test has filled
    monkeypatch.setattr(OlmoeModel, "forward", counting)
    trainer = make_trainer(Case("dpo"), "training.precompute_ref_log_probs=true")
    rows = list(trainer.train_dataset)
    tokens = sum(len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in rows)
    assert sum(ids.numel() for ids in seen) == tokens
    assert all(len(ids) == 1 for ids in seen)


def test_what_a_packed_batch_would_not_read_is_an_error(make_trainer):
    trainer = make_trainer(Case("dpo"))
    batch = trainer.data_collator([trainer.train_dataset[0]])
    labels = batch["input_ids"]
    with pytest.raises(AssertionError, match="position_ids"):
        trainer.model(labels, labels=labels, fused_lm_head=True, packed=batch["packed"], position_ids=labels)
