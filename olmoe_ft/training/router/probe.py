"""Fixed rows that the network looks at before, while and after it trains: the experts that its routers choose for them.

Shapes: B rows, S positions, T tokens that count, L layers, E experts, K experts per token.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase, Trainer

from olmoe_ft.constants import IGNORED, Tokens
from olmoe_ft.objective import chosen_experts
from olmoe_ft.training.router.logits import counted_tokens

ROWS, LENGTH = 16, 128  # of the probe: so many rows from all over the training set, cut to so many tokens
INPUTS = ("input_ids", "attention_mask", "position_ids")


def probed(trainer: Trainer, probe: dict[str, Tensor], experts_per_token: int) -> Tensor:
    """The experts of a probe's tokens that count, (L, T, K), on the CPU; draws no random number.

    Every process must take part: under ZeRO-3 a forward pass needs all of them.
    """
    model: Any = trainer.model_wrapped
    inputs = {name: rows.to(trainer.args.device) for name, rows in probe.items() if name in INPUTS}
    nothing = torch.full_like(inputs["input_ids"], IGNORED)
    training = model.training
    model.eval()
    # The same way as a training step's, with labels to score: ZeRO-3 loses weights between forward passes that
    # call other modules, and gathers those of adapters on experts only for a forward of the whole model.
    with torch.no_grad(), trainer.compute_loss_context_manager():
        scores = model(**inputs, labels=nothing, fused_lm_head=True, output_router_logits=True)
    model.train(training)
    chosen = chosen_experts(scores.router_logits, experts_per_token).cpu()
    return chosen[:, probe["counted"].flatten()]


def texts_of(input_ids: Tensor, tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """The text of each token that a probe has; empty where the tokenizer has none for it."""
    ids = input_ids.unique().tolist()
    texts = tokenizer.batch_decode([[token] for token in ids], clean_up_tokenization_spaces=False)
    return dict(zip(ids, texts, strict=True))


def probe_batch(trainer: Trainer, tokens: Tokens) -> dict[str, Tensor]:
    """Rows spread over the training set, as the trainer's collator makes them, each cut to a length.

    Returns:
        `input_ids`, `counted` (whether `router.tokens` counts a token), and `attention_mask` or, of packed rows, which
        have no padding, `position_ids`; all (B, S).
    """
    dataset: Any = trainer.train_dataset
    pad_token_id = trainer.processing_class.pad_token_id
    count = min(ROWS, len(dataset))
    columns: dict[str, list[Tensor]] = {}
    for index in range(count):
        batch = trainer.data_collator([dataset[index * len(dataset) // count]])  # packed: one row; a pair: two
        ids = batch["input_ids"]
        attention = batch.get("attention_mask", torch.ones_like(ids))
        counted = counted_tokens(batch, tokens, pad_token_id)
        counted = attention.bool() if counted is None else counted.view_as(ids) & attention.bool()
        rows = {"input_ids": ids, "attention_mask": attention, "counted": counted}
        rows |= {"position_ids": batch["position_ids"]} if "position_ids" in batch else {}
        for name, values in rows.items():
            columns.setdefault(name, []).extend(values[:, :LENGTH])
    if "position_ids" in columns:  # as in training: without a mask, so none may be longer than another
        shortest = min(map(len, columns["position_ids"]))
        columns = {name: [row[:shortest] for row in rows] for name, rows in columns.items()}
        visible = columns.pop("attention_mask")
    else:
        visible = columns["attention_mask"]
    probe = {
        name: pad_sequence(rows, batch_first=True, padding_value=pad_token_id if name == "input_ids" else 0)
        for name, rows in columns.items()
    }
    if not probe["counted"].any():  # the answers are behind the cut: their prompts show the drift too
        probe["counted"] = pad_sequence(visible, batch_first=True).bool()
    return probe
