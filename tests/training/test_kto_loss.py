"""KTO's loss of a step by hand, and the loss without an estimate."""

import math

import pytest
import torch
from support.training_cases import Case


def log_prob(model, prompt, answer) -> float:
    """Of an answer behind a prompt, from the logits of that row alone."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + answer])).logits[0].double()
    found = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    return found.gather(1, torch.tensor(answer)[:, None]).sum().item()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("move", [1.5, 0.7])
def test_the_loss_of_a_step_is_equation_8(make_trainer, shared, move):
    """Ethayarajh et al. 2024: of rows i, r_i = log pi(y_i | x_i) - log pi_ref(y_i | x_i), and
    z_0 = max(0, mean of the same for the answer of row i - 1 behind x_i). The loss is the mean of
    lambda_D (1 - sigmoid(beta (r_i - z_0))) of good rows and lambda_U (1 - sigmoid(beta (z_0 - r_i))) of bad ones.
    """
    weights = "training.desirable_weight=1.5", "training.undesirable_weight=0.8", "training.beta=0.3"
    attention = () if shared else ("model.attn_implementation=eager",)
    trainer = make_trainer(Case("kto", rows=4, micro_batches=2), "router.load_balancing_coef=0",
                           "router.z_loss_coef=0", *weights, *attention)  # fmt: skip
    with torch.no_grad():
        trainer.ref_model.lm_head.weight.mul_(move)
    rows = [trainer.train_dataset[index] for index in range(8)]
    policy, reference = trainer.model, trainer.ref_model

    def ratio(row, answer):
        return log_prob(policy, row["prompt_ids"], answer) - log_prob(reference, row["prompt_ids"], answer)

    z = max(0.0, sum(ratio(row, row["KL_completion_ids"]) for row in rows) / 8)
    by_hand = []
    for row in rows:
        better = (1 if row["label"] else -1) * (ratio(row, row["completion_ids"]) - z)
        by_hand.append((1.5 if row["label"] else 0.8) * (1 - 1 / (1 + math.exp(-0.3 * better))))
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 2
    collate, batches = trainer.data_collator, []
    batches, _ = trainer.get_batch_samples(iter([collate(rows[:4]), collate(rows[4:])]), 2, trainer.args.device)
    losses = [trainer.compute_loss(trainer.model, batch).item() for batch in batches]
    assert sum(losses) / 2 == pytest.approx(sum(by_hand) / 8, rel=1e-5)
    assert trainer._metrics["train"]["kl"] == pytest.approx([z, z], rel=1e-4, abs=1e-6)


def test_without_an_estimate_no_answer_is_joined(make_trainer):
    trainer = make_trainer(Case("kto"), "training.loss_type=apo_zero_unpaired")
    assert "KL_completion_ids" not in trainer.train_dataset.column_names
    trainer.train()
    assert trainer.state.global_step == 2
