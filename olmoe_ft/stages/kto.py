"""Kahneman-Tversky optimisation: single answers, judged good or bad (KTO; Ethayarajh et al. 2024, arXiv:2402.01306)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from olmoe_ft.stages.base import Forwards, Metric, Tally, TrainerArguments
from olmoe_ft.stages.preferences import PreferenceStage, conversation

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from olmoe_ft.data.length import Length
    from olmoe_ft.data.rows import Reading, RowError
    from olmoe_ft.data.tokens import Tokens
    from olmoe_ft.recipe.options.given import Given
    from olmoe_ft.recipe.wording import Problem

OPTIONS = {
    "loss_type": "`kto`, or `apo_zero_unpaired`, which has no KL term",
    "beta": "TRL's KTO loss, and the rewards that are recorded",
    "desirable_weight": "weight of the loss of good answers; the audit says which weights balance the rows",
    "undesirable_weight": "weight of the loss of bad answers",
}
FEWEST = 2  # rows of a micro-batch that TRL's loss kto takes


class KTO(PreferenceStage):
    """Rows are a `prompt`, a `completion` and its `label`, true if it is good.

    The loss (eq. 8) compares how much likelier an answer became with an estimate of the KL divergence from the
    reference, made of answers to other prompts: `join` pairs them, `kto_estimate.py` makes it.
    """

    name = "kto"
    title = "Kahneman-Tversky optimisation"
    trl = "KTO"
    unit = "rows"
    formats = ("messages", "prompt_completion", "alpaca", "sharegpt", "text", "preference")
    sequences = (("prompt_ids", "completion_ids"),)
    estimated = ("prompt_ids", "KL_completion_ids")
    metrics = {
        "loss": Metric("rows", False),
        "kl": Metric("rows", None),
        "rewards/chosen": Metric("good rows", True),
        "rewards/rejected": Metric("bad rows", False),
        "rewards/margins": Metric("rows", True),
        "logps/chosen": Metric("good rows", True),
        "logps/rejected": Metric("bad rows", False),
        "logits/chosen": Metric("good tokens", None),
        "logits/rejected": Metric("bad tokens", None),
        "entropy": Metric("tokens", None),
    }
    options = PreferenceStage.options | OPTIONS
    labelled = True

    def rules(self) -> tuple[Callable[[Given], Iterator[Problem]], ...]:
        return *super().rules(), _broken

    def fewest_rows(self, training: Mapping[str, Any]) -> int:
        return FEWEST if self.joins(training) else 1

    def forwards(self, arguments: TrainerArguments) -> Forwards:
        estimates = int(arguments.loss_type == "kto")
        return Forwards(estimates, (1 + estimates) * super().forwards(arguments).reference)

    def why_padded(self, attn_implementation: str) -> str | None:
        if attn_implementation == "sdpa" or attn_implementation.startswith("flash"):
            return None
        return f"attn_implementation {attn_implementation} would need a mask between all tokens, sdpa does not"

    def features(self) -> dict[str, Any]:
        from datasets import Value

        from olmoe_ft.data.sources import MESSAGES

        return {"prompt": MESSAGES, "completion": MESSAGES, "label": Value("bool")}

    def columns(self) -> dict[str, Any]:
        from datasets import List, Value

        tokens = List(Value("int32"))
        return {
            "prompt_ids": tokens,
            "completion_ids": tokens,
            "label": Value("bool"),
            "prompt_hash": Value("int64"),  # of the whole prompt, which may be cut differently beside other answers
        }

    def convert(self, row: Any, format: str | None, reading: Reading) -> list[dict[str, Any]]:
        from olmoe_ft.data.judgements import judged_answers

        return judged_answers(row, format, reading)

    def tokenize(
        self, examples: Sequence[dict[str, Any]], length: Length, tokenizer: PreTrainedTokenizerBase
    ) -> list[dict[str, Any]]:
        from olmoe_ft.data.tokens import tokenize

        tokens = tokenize([conversation(example, "completion") for example in examples], tokenizer)
        rows = (_row(whole, length, tokenizer.bos_token_id) for whole in tokens)
        return [row | {"label": example["label"]} for row, example in zip(rows, examples, strict=True)]

    def spans(self, row: Mapping[str, Any]) -> Iterator[tuple[str, list[int]]]:
        yield from (("seen", row["prompt_ids"]), ("good" if row["label"] else "bad", row["completion_ids"]))

    def joins(self, training: Mapping[str, Any]) -> bool:
        from olmoe_ft.recipe.training_fields import default_of

        return training.get("loss_type", default_of(self.name, "loss_type")) == "kto"

    def join(self, rows: Dataset, **more: Any) -> Dataset:
        """Beside each row the answer of the row before it, or of the last one before that with another prompt.

        So the answers that the KL term of a step is estimated from are those of its rows, but for the first, whatever
        the micro-batches and processes. TRL (1.16, `_prepare_dataset`) pairs within each micro-batch, so that a row
        alone gets its own answer, and two rows of one prompt each other's.
        """
        from olmoe_ft.stages.kto_estimate import with_answers_to_others

        return with_answers_to_others(rows, **more)

    def tallies(self, rows: Dataset) -> dict[str, Tally]:
        from olmoe_ft.stages.kto_balance import tallies

        return tallies(rows)

    def advice(self, tallies: Mapping[str, Tally], training: Mapping[str, Any]) -> Iterator[str]:
        from olmoe_ft.recipe.training_fields import default_of
        from olmoe_ft.stages.kto_balance import advice

        names = "desirable_weight", "undesirable_weight"
        of_good, of_bad = (training.get(name, default_of(self.name, name)) for name in names)
        return advice(tallies, of_good, of_bad, self.joins(training))

    def unmeasured(self, tallies: Mapping[str, Tally], training: Mapping[str, Any]) -> dict[str, str]:
        from olmoe_ft.stages.kto_balance import BAD, GOOD

        lacking = {"kl": "a loss without a KL term"} if not self.joins(training) else {}
        for kind, side in ((GOOD, "chosen"), (BAD, "rejected")):
            if not tallies[kind].number:
                names = (f"rewards/{side}", f"logps/{side}", f"logits/{side}", "rewards/margins")
                lacking |= dict.fromkeys(names, f"no {kind}")
        return lacking

    def fields(self, arguments: TrainerArguments) -> tuple[str, ...]:
        return "log_probs", "entropy", "mean_logits"

    def collator(
        self, arguments: TrainerArguments, tokenizer: PreTrainedTokenizerBase, attn_implementation: str
    ) -> Any:
        from olmoe_ft.stages.kto_estimate import JudgementCollator

        laid = self.lays_end_to_end(attn_implementation)
        return JudgementCollator(tokenizer.pad_token_id, arguments.max_length, end_to_end=laid)

    def mixins(self) -> tuple[type, ...]:
        from olmoe_ft.stages.kto_estimate import EstimateMixin

        return (EstimateMixin,)

    def counts(self, batch: Mapping[str, Tensor]) -> dict[str, int]:
        label, tokens = batch["label"].bool(), batch["completion_mask"][:, 1:].sum(dim=1)
        return {
            "rows": len(label),
            "good rows": int(label.sum()),
            "bad rows": int((~label).sum()),
            "tokens": int(tokens.sum()),
            "good tokens": int(tokens[label].sum()),
            "bad tokens": int(tokens[~label].sum()),
        }

    def close(self, means: dict[str, float]) -> dict[str, float]:
        """The margin of all rows: TRL's is of a batch, and none where a batch has rows of one kind alone."""
        means.pop("rewards/margins", None)
        if {"rewards/chosen", "rewards/rejected"} <= means.keys():
            means["rewards/margins"] = means["rewards/chosen"] - means["rewards/rejected"]
        return means

    def scored_loss(self, log_probs: Tensor, reference: Tensor | None, arguments: TrainerArguments) -> Tensor:
        """1 - sigmoid(beta log-ratio), the mean over rows: eq. 8 of good answers, with an estimate of 0."""
        assert reference is not None
        ratios = log_probs.sum(dim=1) - reference.sum(dim=1)
        return arguments.desirable_weight * (1 - (arguments.beta * ratios).sigmoid()).mean()


def _broken(given: Given) -> Iterator[Problem]:
    from olmoe_ft.recipe.wording import shown

    if given["label_smoothing_factor"]:
        yield "label_smoothing_factor", "KTO has no labels of tokens to smooth; remove it"
    if given["loss_type"] != "kto":
        return
    estimate = "the loss kto compares each row with an estimate that is made of several"
    if (rows := given["per_device_train_batch_size"]) < FEWEST:
        yield (
            "per_device_train_batch_size",
            f"found {rows}; {estimate}, so TRL takes no batch of one row; give at least {FEWEST}, or set loss_type to "
            "apo_zero_unpaired",
        )
    if (strategy := given["train_sampling_strategy"]) != "sequential":
        yield (
            "train_sampling_strategy",
            f"found {shown(strategy)}; {estimate}, which stay together only if taken in order (the mixture is shuffled "
            "once, by the seed); allowed: sequential, or set loss_type to apo_zero_unpaired",
        )


def _row(whole: Tokens | RowError, length: Length, bos: int) -> dict[str, Any]:
    """The columns and the facts of one row, but for its label."""
    from olmoe_ft.data.facts import TOO_LONG, cut_away, refused
    from olmoe_ft.data.mixture import hash_of
    from olmoe_ft.data.rows import RowError

    if isinstance(whole, RowError):
        return refused(whole)
    prompt = whole.input_ids[: whole.answer_start]
    answer = whole.input_ids[whole.answer_start : whole.answer_end]
    size = len(prompt) + len(answer)
    facts: dict[str, Any] = {
        "tokens": size,
        "length": size,
        "dropped": "",
        "ends_with_eos": whole.ends_with_eos,
        "double_bos": prompt[:2] == [bos] * 2,
    }
    cut = length.answered(prompt, [answer], bos)
    if isinstance(cut, str):
        return facts | {"dropped": TOO_LONG, "problem": cut}
    if not cut[1]:
        return facts | cut_away(length, len(prompt))
    facts |= {"cut_prompt": len(prompt) - len(cut[0]), "cut_answer": len(answer) - len(cut[1])}
    columns = {"prompt_ids": cut[0], "completion_ids": cut[1], "prompt_hash": hash_of(prompt)}
    return facts | columns | {"supervised": len(cut[1])}
