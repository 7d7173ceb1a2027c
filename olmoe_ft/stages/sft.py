"""Supervised fine-tuning: the likelihood of the answers in conversations, or of plain texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from olmoe_ft.stages.base import Metric, Packing, Stage, TrainerArguments

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from olmoe_ft.data.length import Length
    from olmoe_ft.data.rows import Reading, RowError
    from olmoe_ft.data.tokens import Tokens
    from olmoe_ft.recipe.options.given import Given
    from olmoe_ft.recipe.wording import Problem

LARGEST_EXPONENT = 700  # of a double


class SFT(Stage):
    """Rows are conversations (`messages`, and which of them are learned) or texts; labels are what is learned."""

    name = "sft"
    title = "supervised fine-tuning"
    trl = "SFT"
    unit = "rows"
    formats = ("messages", "prompt_completion", "alpaca", "sharegpt", "text")
    sequences = (("input_ids",),)
    metrics = {
        "loss": Metric("tokens", False),
        "perplexity": Metric("tokens", False),
        "mean_token_accuracy": Metric("tokens", True),
        "entropy": Metric("tokens", None),
    }
    options = {"loss_type": "`nll`, the likelihood of the answers, or `dft`, which weighs tokens by their probability"}
    selective_checkpointing = True

    def rules(self) -> tuple[Callable[[Given], Iterator[Problem]], ...]:
        return (_broken,)

    def packing(self, training: Mapping[str, Any], evaluation: bool = False) -> Packing | None:
        from olmoe_ft.recipe.training_fields import default_of

        def given(name: str) -> Any:
            return training.get(name, default_of(self.name, name))

        packs = given("packing")
        if evaluation and given("eval_packing") is not None:
            packs = given("eval_packing")
        return Packing(given("max_length"), given("packing_strategy")) if packs else None

    def guessing_loss(self, vocabulary: int) -> float | None:
        return math.log(vocabulary)

    def order_seed(self, training: Mapping[str, Any]) -> int | None:
        from olmoe_ft.recipe.training_fields import default_of

        if not training.get("shuffle_dataset", default_of(self.name, "shuffle_dataset")):
            return None
        return training.get("seed", default_of(self.name, "seed"))

    def features(self) -> dict[str, Any]:
        from datasets import List, Value

        from olmoe_ft.data.sources import MESSAGES

        return {"messages": MESSAGES, "learned": List(Value("bool")), "text": Value("string")}

    def columns(self) -> dict[str, Any]:
        from datasets import List, Value

        return {"input_ids": List(Value("int32")), "labels": List(Value("int32"))}

    def convert(self, row: Any, format: str | None, reading: Reading) -> list[dict[str, Any]]:
        from olmoe_ft.data.formats import training_example

        return [training_example(row, format, reading)]

    def tokenize(
        self, examples: Sequence[dict[str, Any]], length: Length, tokenizer: PreTrainedTokenizerBase
    ) -> list[dict[str, Any]]:
        from olmoe_ft.data.tokens import tokenize

        return [_row(whole, length, tokenizer.bos_token_id) for whole in tokenize(examples, tokenizer)]

    def spans(self, row: Mapping[str, Any]) -> Iterator[tuple[str, list[int]]]:
        from olmoe_ft.data.tokens import IGNORED

        tokens = zip(row["input_ids"], row["labels"], strict=True)
        for learned, pieces in groupby(tokens, lambda pair: pair[1] != IGNORED):
            yield "learned" if learned else "seen", [token for token, _ in pieces]

    def fields(self, arguments: TrainerArguments) -> tuple[str, ...]:
        return "log_probs", "entropy", "is_top1"

    def counts(self, batch: Mapping[str, Tensor]) -> dict[str, int]:
        return {"tokens": len(batch["places"])}

    def split_loss(
        self, trainer: Any, loss: float, scores: Any, batch: Mapping[str, Tensor]
    ) -> dict[tuple[str, str], float]:
        """Beside the loss, which may be smoothed or weighted (`loss_type: dft`), what perplexity is made of."""
        likelihood = -scores.log_probs.sum().item() / max(1, len(batch["places"]))
        return super().split_loss(trainer, loss, scores, batch) | {("negative_log_likelihood", "tokens"): likelihood}

    def close(self, means: dict[str, float]) -> dict[str, float]:
        if (likelihood := means.pop("negative_log_likelihood", None)) is None:
            return means  # of a record of training
        return means | {"perplexity": math.inf if likelihood > LARGEST_EXPONENT else math.exp(likelihood)}

    def scored_loss(self, log_probs: Tensor, reference: Tensor | None, arguments: TrainerArguments) -> Tensor:
        return -log_probs.mean()


def _broken(given: Given) -> Iterator[Problem]:
    from olmoe_ft.recipe.wording import shown

    packs = [name for name in ("packing", "eval_packing") if given[name]]
    if packs and given["max_length"] is None:
        yield "max_length", f"found null with training.{packs[0]}, which packs rows to this length; give a number"
    if given["loss_type"] == "chunked_nll":
        yield "loss_type", 'found "chunked_nll", an old name; set it to nll, which is the same'
    if given["label_smoothing_factor"] and given["loss_type"] == "dft":
        yield "label_smoothing_factor", "found with loss_type dft, which does not use it; remove one of them"
    multiple = given["pad_to_multiple_of"]
    if isinstance(multiple, str) and multiple != "auto":
        yield "pad_to_multiple_of", f"found {shown(multiple)}; allowed: a whole number, auto"


def _row(whole: Tokens | RowError, length: Length, bos: int) -> dict[str, Any]:
    """The columns and the facts of one row."""
    from olmoe_ft.data.facts import TOO_LONG, UNLEARNED, cut_away, refused
    from olmoe_ft.data.rows import RowError

    if isinstance(whole, RowError):
        return refused(whole)
    size = len(whole.input_ids)
    facts: dict[str, Any] = {
        "tokens": size,
        "length": size,
        "dropped": "",
        "ends_with_eos": whole.ends_with_eos,
        "double_bos": whole.input_ids[:2] == [bos] * 2,
    }
    if not whole.supervised:
        problem = "no turn is left to learn (because of its own marks, or data.learn)"
        return facts | {"dropped": UNLEARNED, "problem": problem}
    cut = length.conversation(whole, bos)
    if isinstance(cut, str):
        return facts | {"dropped": TOO_LONG, "problem": cut}
    if not cut.supervised:
        return facts | cut_away(length, whole.answer_start)
    if len(cut.input_ids) < size:
        facts["cut_answer"] = whole.supervised - cut.supervised
        facts["cut_prompt"] = max(0, size - len(cut.input_ids) - facts["cut_answer"])
    return facts | {"supervised": cut.supervised, "input_ids": cut.input_ids, "labels": cut.labels}
