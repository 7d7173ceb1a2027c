"""Pairs in one row: the layout by hand, and the same numbers as TRL's padded batch."""

import pytest
import torch
from support.networks import assert_close, ours, scoring
from support.training_cases import Case
from trl.trainer.utils import add_fused_lm_head

from olmoe_ft.model.attention_plan import BOUNDS
from olmoe_ft.stages import STAGES
from olmoe_ft.stages.shared_prompts import SharedPromptCollator, lay_end_to_end
from olmoe_ft.training.scoring import FIELDS, drop_trl_head

PAIRS = [
    {"prompt_ids": [5, 6], "chosen_ids": [7], "rejected_ids": [8, 9, 10]},
    {"prompt_ids": [11], "chosen_ids": [12, 13], "rejected_ids": [14]},
]


def pairs(seed: int, count: int = 4) -> list[dict[str, list[int]]]:
    generator = torch.Generator().manual_seed(seed)

    def ids(most: int) -> list[int]:
        size = int(torch.randint(1, most, (), generator=generator))
        return torch.randint(3, 97, (size,), generator=generator).tolist()

    return [{"prompt_ids": ids(12), "chosen_ids": ids(9), "rejected_ids": ids(9)} for _ in range(count)]


def test_two_pairs_by_hand():
    """5 6 | 7 | 8 9 10 and 11 | 12 13 | 14: ten tokens in the place of 4 x 5, of which 13 are no padding.

    Targets of the padded rows are numbered 0 to 3, 4 to 7, 8 to 11, 12 to 15. The 7 is target 1, predicted by the 6 at
    place 1; so is the 8, target 9. The 9 and 10 are predicted by the tokens at 3 and 4. And so on in the second pair.
    """
    packed = SharedPromptCollator(pad_token_id=1)(PAIRS)["packed"]
    assert packed["input_ids"].tolist() == [[5, 6, 7, 8, 9, 10, 11, 12, 13, 14]]
    assert packed["position_ids"].tolist() == [[0, 1, 2, 2, 3, 4, 0, 1, 2, 1]]
    assert packed["completion_mask"].tolist() == [[0, 0, 1, 1, 1, 1, 0, 1, 1, 1]]
    assert packed["cu_seq_lens_q"].tolist() == [0, 3, 6, 9, 10]
    assert packed["cu_seq_lens_k"].tolist() == [0, 3, 8, 11, 13]
    assert packed["key_places"].tolist() == [0, 1, 2, 0, 1, 3, 4, 5, 6, 7, 8, 6, 9]
    assert (packed["max_length_q"], packed["max_length_k"]) == (3, 5)
    assert packed["places"].tolist() == [1, 9, 10, 11, 4, 5, 12]
    assert packed["scored"].tolist() == [1, 1, 3, 4, 6, 7, 6]


def test_other_prompts_are_not_shared():
    """Truncation on the left may cut the two sides differently; then each keeps its own."""
    ids = torch.tensor([[5, 6, 7], [6, 5, 8]])
    packed = lay_end_to_end(ids, torch.ones_like(ids), torch.tensor([[0, 0, 1], [0, 0, 1]]), answers=2)
    assert packed["input_ids"].tolist() == [[5, 6, 7, 6, 5, 8]]
    assert packed["cu_seq_lens_q"].tolist() == packed["cu_seq_lens_k"].tolist() == [0, 3, 6]
    assert packed["key_places"].tolist() == list(range(6))


@pytest.mark.parametrize("seed", range(6))
def test_every_field_equals_that_of_trls_head_on_padded_rows(seed):
    """Log-probabilities, entropies and the rest of each answer's tokens to 1e-5 in fp32, and every gradient."""
    model = scoring()
    batch = SharedPromptCollator(pad_token_id=1)(pairs(seed))
    packed = batch.pop("packed")
    labels = batch["input_ids"].masked_fill(batch.pop("completion_mask") == 0, -100)
    weights = torch.randn(labels.shape[0], labels.shape[1] - 1)
    results = []
    for head, more in (("TRL's", {}), ("ours", {}), ("ours", {"packed": packed})):
        add_fused_lm_head(model, outputs=FIELDS)
        if head == "ours":
            drop_trl_head(model)
        output = model(**batch, labels=labels, fused_lm_head=True, use_cache=False, **more)
        fields = {name: getattr(output, name) for name in FIELDS}
        total = (output.log_probs * weights).sum() + (output.entropy * weights).sum()
        gradients = torch.autograd.grad(total, list(model.parameters()))
        results.append((fields, output.label_mask, gradients))
    for fields, mask, gradients in results[1:]:
        assert torch.equal(mask, results[0][1])
        assert_close(fields, results[0][0])
        assert_close(gradients, results[0][2], 5e-5)
    assert (results[0][0]["log_probs"] != 0).sum() == (labels != -100).sum()


def test_the_head_without_labels_still_reaches_the_weights():
    """A micro-batch of which nothing is learned: zeros, and gradients of zero instead of a crash."""
    model = scoring()
    ids = torch.randint(3, 97, (2, 5))
    output = model(ids, labels=torch.full_like(ids, -100), fused_lm_head=True)
    output.log_probs.sum().backward()
    assert output.log_probs.shape == (2, 4) and not output.log_probs.any()
    assert not model.lm_head.weight.grad.any() and not model.model.embed_tokens.weight.grad.any()


def test_without_the_flag_the_network_is_as_before():
    model, stock, ids = scoring(), ours(), torch.randint(3, 97, (1, 6))
    stock.load_state_dict(model.state_dict())
    before, after = stock(ids, labels=ids), model(ids, labels=ids)
    assert torch.equal(after.loss, before.loss) and torch.equal(after.logits, before.logits)
    assert torch.equal(model.generate(ids, max_new_tokens=3, do_sample=False)[:, :6], ids)


@pytest.mark.parametrize("form", ["full", "lora"])
def test_training_with_shared_prompts_is_training_without(make_trainer, tmp_path, form):
    """The first two steps' losses, and that a prompt is routed once."""
    losses, tokens = [], []
    for shared in (True, False):
        trainer = make_trainer(Case("dpo", form=form), "router.load_balancing_coef=0", "router.z_loss_coef=0")
        assert isinstance(trainer.data_collator.collate, SharedPromptCollator)
        if not shared:
            collate = trainer.data_collator
            trainer.data_collator = lambda rows, collate=collate: {
                name: value for name, value in collate(rows).items() if name != "packed"
            }
        trainer.train()
        records = [record for record in trainer.state.log_history if "loss/task" in record]
        losses.append([record["loss/task"] for record in records])
        tokens.append(sum(record["router/tokens"] for record in records))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5) and len(losses[0]) == 2
    assert tokens[0] < tokens[1]


def test_where_keys_cannot_be_shared_the_reason_is_said(make_trainer):
    trainer = make_trainer(Case("dpo"), "model.attn_implementation=eager")
    reason = "attn_implementation eager does not let answers share keys, sdpa does"
    assert STAGES["dpo"].why_padded("eager") == reason and not STAGES["dpo"].lays_end_to_end("eager")
    assert not isinstance(trainer.data_collator.collate, SharedPromptCollator)
    assert set(BOUNDS).isdisjoint(trainer.data_collator([trainer.train_dataset[0]]))
    trainer.train()
    assert trainer.state.global_step == 2
