"""What is in the rows a stage trains on: the numbers of each source, and what in them should make one stop and look."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow.compute as compute
from datasets import concatenate_datasets

from olmoe_ft.data.duplicates import copies
from olmoe_ft.data.mixture import Mixture
from olmoe_ft.data.prepare import Prepared


@dataclass(frozen=True)
class SourceAudit:
    """One source. Rows are those read (after `max_rows`), tokens those of rows that can be read, before truncation."""

    path: str
    rows: int
    drawn: int
    """Rows an epoch trains on, by `weight` and `repeat`."""
    dropped: dict[str, int]
    """Rows that are not trained on, by reason."""
    turns: int
    tokens: int
    tokens_p50: float
    tokens_p95: float
    tokens_max: int
    supervised_tokens: int
    """Tokens that a loss is taken of, after truncation; of a pair those of both answers."""
    truncated_rows: int
    truncated_prompt_tokens: int
    truncated_answer_tokens: int
    without_eos: int
    """Rows whose last supervised token is not EOS, before truncation."""
    double_bos: int
    special_tokens: int
    """Rows in whose text EOS or another special token is written out."""
    exact_copies: int
    """Rows whose turns stand word for word in an earlier row of the mixture's sources."""
    near_copies: int
    """Other rows with a Jaccard similarity of at least 0.8 to an earlier one (5-word shingles, MinHash estimate)."""
    same_answers: int
    """Pairs whose chosen and rejected answers are the same."""
    held_out_rows: int
    """Rows in which a held-out prompt stands."""
    held_out_prompts: int
    """Held-out prompts that stand in a row."""


@dataclass(frozen=True)
class Audit:
    """All sources of a stage's training rows."""

    sources: list[SourceAudit]

    def findings(self) -> list[str]:
        """What in the numbers is worth a look, as sentences."""
        return [f"{source.path}: {sentence}" for source in self.sources for sentence in _findings(source)]

    def as_dict(self) -> dict[str, Any]:
        return {"sources": [asdict(source) for source in self.sources], "findings": self.findings()}


def audit(mixture: Mixture) -> Audit:
    """Count what `prepare` noted about every row; the rows themselves are not read again.

    Takes 150 bytes of memory a row, and the time of sorting that.
    """
    facts = [prepared.rows.select_columns(["row_hash", "signature"]) for prepared in mixture.sources]
    readable = np.concatenate([prepared.fact("tokens") > 0 for prepared in mixture.sources])
    exact, near = (mask & readable for mask in copies(concatenate_datasets(facts)))
    ends = np.cumsum([len(prepared.rows) for prepared in mixture.sources])[:-1]
    split = zip(mixture.sources, np.split(exact, ends), np.split(near, ends), strict=True)
    return Audit([_audit_source(*parts) for parts in split])


def _audit_source(prepared: Prepared, exact: np.ndarray, near: np.ndarray) -> SourceAudit:
    fact, source = prepared.fact, prepared.source
    lengths = fact("tokens")
    lengths = lengths[lengths > 0]
    median, most = np.percentile(lengths, (50, 95)) if len(lengths) else (0.0, 0.0)
    prompt, answer = fact("cut_prompt"), fact("cut_answer")
    readable = fact("tokens") > 0
    held_out = prepared.rows.data.column("held_out")
    return SourceAudit(
        path=source.path,
        rows=len(prepared.rows),
        drawn=round(source.weight * len(prepared.kept)) * source.repeat,
        dropped=prepared.dropped,
        turns=int(fact("turns").sum()),
        tokens=int(lengths.sum(dtype=np.int64)),
        tokens_p50=float(median),
        tokens_p95=float(most),
        tokens_max=int(lengths.max(initial=0)),
        supervised_tokens=int(fact("supervised")[prepared.kept].sum(dtype=np.int64)),
        truncated_rows=int(np.count_nonzero(prompt + answer)),
        truncated_prompt_tokens=int(prompt.sum(dtype=np.int64)),
        truncated_answer_tokens=int(answer.sum(dtype=np.int64)),
        without_eos=int((readable & ~fact("ends_with_eos")).sum()),
        double_bos=int(fact("double_bos").sum()),
        special_tokens=int(fact("special_tokens").sum()),
        exact_copies=int(exact.sum()),
        near_copies=int(near.sum()),
        same_answers=int(fact("same_answers").sum()),
        held_out_rows=int(np.count_nonzero(compute.list_value_length(held_out).to_numpy())),
        held_out_prompts=len(compute.unique(compute.list_flatten(held_out))),
    )


def _findings(source: SourceAudit) -> Sequence[str]:
    def share(count: int) -> str:
        return f"{count:,} of {source.rows:,} rows ({count / source.rows:.1%})"

    tokens = f"{source.truncated_prompt_tokens:,} of prompts and {source.truncated_answer_tokens:,} of answers"
    sentences = {
        "without_eos": "do not end their last answer with EOS, so the model does not learn to stop there",
        "double_bos": "begin with BOS twice: the text brings one of its own",
        "special_tokens": "have a special token, such as EOS, written in their text; the model sees the token there",
        "truncated_rows": f"are cut, by {tokens} in tokens (data.long_prompts, data.long_answers)",
        "exact_copies": "stand word for word in an earlier row",
        "near_copies": "are near copies of an earlier row",
        "same_answers": "have the same chosen and rejected answer, and teach no preference",
        "held_out_rows": f"hold {source.held_out_prompts:,} held-out prompts (data.decontaminate leaves such rows out)",
    }
    dropped = [f"{share(count)} are dropped: {reason}" for reason, count in source.dropped.items()]
    counted = {name: getattr(source, name) for name in sentences}
    return dropped + [f"{share(count)} {sentences[name]}" for name, count in counted.items() if count]
