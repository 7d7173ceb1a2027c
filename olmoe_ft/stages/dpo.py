"""Direct preference optimisation: the better of two answers (Rafailov et al. 2023, https://arxiv.org/abs/2305.18290)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from olmoe_ft.stages.base import Metric, TrainerArguments
from olmoe_ft.stages.preferences import PreferenceStage, conversation

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from olmoe_ft.data.length import Length
    from olmoe_ft.data.rows import Reading, RowError
    from olmoe_ft.data.tokens import Tokens
    from olmoe_ft.recipe.options.given import Given
    from olmoe_ft.recipe.wording import Problem

OPTIONS = {
    "loss_type": "the loss of the task, or a list of losses that are summed",
    "loss_weights": "weights of the losses in `loss_type`, one for each",
    "beta": "TRL's DPO loss, and the rewards that are recorded",
    "label_smoothing": "TRL's DPO loss: exo_pair, robust, aot and aot_unpaired use it",
    "ld_alpha": "weight of the log-probabilities beyond the length of the shorter answer (LD-DPO)",
    "f_divergence_type": "TRL's DPO loss: the divergence from the reference",
    "f_alpha_divergence_coef": "TRL's DPO loss, with `f_divergence_type: alpha_divergence`",
    "use_weighting": "TRL's DPO loss: pairs weighted by their probability (WPO)",
    "discopop_tau": "TRL's DPO loss, with `loss_type: [discopop]`",
}
COLUMNS = ("prompt_ids", "chosen_ids", "rejected_ids")


class DPO(PreferenceStage):
    """Rows are pairs: `prompt`, `chosen` and `rejected`. A batch has all chosen sequences, then all rejected."""

    name = "dpo"
    title = "direct preference optimisation"
    trl = "DPO"
    unit = "pairs"
    formats = ("preference",)
    sequences = (("prompt_ids", "chosen_ids"), ("prompt_ids", "rejected_ids"))
    metrics = {
        "loss": Metric("pairs", False),
        "rewards/accuracies": Metric("pairs", True),
        "rewards/margins": Metric("pairs", True),
        "rewards/chosen": Metric("pairs", True),
        "rewards/rejected": Metric("pairs", False),
        "logps/chosen": Metric("pairs", True),
        "logps/rejected": Metric("pairs", False),
        "logits/chosen": Metric("chosen tokens", None),
        "logits/rejected": Metric("rejected tokens", None),
        "mean_token_accuracy": Metric("chosen tokens", True),
        "entropy": Metric("tokens", None),
    }
    options = PreferenceStage.options | OPTIONS

    def rules(self) -> tuple[Callable[[Given], Iterator[Problem]], ...]:
        from olmoe_ft.stages.dpo_rules import broken_losses, labels_of_pairs

        return broken_losses, *super().rules(), labels_of_pairs

    def reference_settings(self, arguments: TrainerArguments) -> tuple[Any, ...]:
        return arguments.max_length, arguments.truncation_mode, arguments.ld_alpha

    def why_padded(self, attn_implementation: str) -> str | None:
        if attn_implementation == "sdpa":
            return None
        return f"attn_implementation {attn_implementation} does not let answers share keys, sdpa does"

    def features(self) -> dict[str, Any]:
        from olmoe_ft.data.sources import MESSAGES

        return {"prompt": MESSAGES, "chosen": MESSAGES, "rejected": MESSAGES}

    def columns(self) -> dict[str, Any]:
        from datasets import List, Value

        return dict.fromkeys(COLUMNS, List(Value("int32")))

    def convert(self, row: Any, format: str | None, reading: Reading) -> list[dict[str, Any]]:
        from olmoe_ft.data.pairs import preference_pair

        return [preference_pair(row, format, reading)]

    def tokenize(
        self, examples: Sequence[dict[str, Any]], length: Length, tokenizer: PreTrainedTokenizerBase
    ) -> list[dict[str, Any]]:
        from olmoe_ft.data.tokens import tokenize

        sides = ("chosen", "rejected")
        tokens = (tokenize([conversation(example, side) for example in examples], tokenizer) for side in sides)
        bos = tokenizer.bos_token_id
        return [_row(chosen, rejected, length, bos) for chosen, rejected in zip(*tokens, strict=True)]

    def spans(self, row: Mapping[str, Any]) -> Iterator[tuple[str, list[int]]]:
        yield from (("seen", row["prompt_ids"]), ("chosen", row["chosen_ids"]), ("rejected", row["rejected_ids"]))

    def fields(self, arguments: TrainerArguments) -> tuple[str, ...]:
        weighting = ("log_sum_sq_probs",) if arguments.use_weighting else ()
        return "log_probs", "entropy", "mean_logits", "is_top1", *weighting

    def collator(
        self, arguments: TrainerArguments, tokenizer: PreTrainedTokenizerBase, attn_implementation: str
    ) -> Any:
        if not self.lays_end_to_end(attn_implementation):
            return None
        from olmoe_ft.stages.shared_prompts import SharedPromptCollator

        return SharedPromptCollator(
            pad_token_id=tokenizer.pad_token_id,
            max_length=arguments.max_length,
            truncation_mode=arguments.truncation_mode,
        )

    def counts(self, batch: Mapping[str, Tensor]) -> dict[str, int]:
        chosen, rejected = (int(mask.sum()) for mask in batch["completion_mask"][:, 1:].chunk(2))
        return {
            "pairs": self.rows_of(batch),
            "tokens": chosen + rejected,
            "chosen tokens": chosen,
            "rejected tokens": rejected,
        }

    def rows_of(self, batch: Mapping[str, Tensor]) -> int:
        return len(batch["input_ids"]) // 2

    def split_loss(
        self, trainer: Any, loss: float, scores: Any, batch: Mapping[str, Tensor]
    ) -> dict[tuple[str, str], float]:
        """TRL's `sft` part of a loss is a mean over the tokens of the chosen answers, everything else over pairs."""
        losses = zip(trainer.loss_types, trainer.loss_weights, strict=True)
        weight = sum(weight for kind, weight in losses if kind == "sft")
        if not weight:
            return super().split_loss(trainer, loss, scores, batch)
        chosen = batch["completion_mask"][:, 1:].chunk(2)[0].bool()
        likelihood = -weight * scores.log_probs.chunk(2)[0][chosen].mean().item()
        return {("loss", "pairs"): loss - likelihood, ("loss", "chosen tokens"): likelihood}

    def scored_loss(self, log_probs: Tensor, reference: Tensor | None, arguments: TrainerArguments) -> Tensor:
        """-log sigmoid(beta (log-ratio of chosen - log-ratio of rejected)), its mean over pairs (eq. 7)."""
        from torch.nn.functional import logsigmoid

        assert reference is not None
        chosen, rejected = (log_probs.sum(dim=1) - reference.sum(dim=1)).chunk(2)
        return -logsigmoid(arguments.beta * (chosen - rejected)).mean()


def _row(chosen: Tokens | RowError, rejected: Tokens | RowError, length: Length, bos: int) -> dict[str, Any]:
    """The columns and the facts of one pair."""
    from olmoe_ft.data.facts import TOO_LONG, cut_away, refused
    from olmoe_ft.data.rows import RowError
    from olmoe_ft.data.tokens import answer_tokens

    if isinstance(chosen, RowError):
        return refused(chosen)
    if isinstance(rejected, RowError):
        return refused(rejected)
    whole = answer_tokens(chosen, rejected)
    if isinstance(whole, RowError):
        return refused(whole)
    sizes = [len(part) for part in whole]
    facts = {
        "tokens": sum(sizes),
        "length": sizes[0] + max(sizes[1:]),
        "dropped": "",
        "ends_with_eos": chosen.ends_with_eos and rejected.ends_with_eos,
        "double_bos": chosen.input_ids[:2] == [bos] * 2,
        "same_answers": whole[1] == whole[2],
    }
    cut = length.answered(whole[0], whole[1:], bos)
    if isinstance(cut, str):
        return facts | {"dropped": TOO_LONG, "problem": cut}
    if not (cut[1] and cut[2]):
        return facts | cut_away(length, sizes[0])
    facts["cut_prompt"], *cut_answers = (before - len(after) for before, after in zip(sizes, cut, strict=True))
    facts["cut_answer"] = sum(cut_answers)
    facts["supervised"] = len(cut[1]) + len(cut[2])
    return facts | dict(zip(COLUMNS, cut, strict=True))
