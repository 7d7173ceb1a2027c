"""The findings of an audit, as sentences."""

from collections.abc import Iterator

from olmoe_ft.data.audit import Audit, SourceAudit
from olmoe_ft.data.heldout import OWN
from olmoe_ft.data.mixture import Mixture
from olmoe_ft.data.rows import KEYS_SHOWN


def findings(audit: Audit) -> list[str]:
    """Everything that a user should check, source by source."""
    return [f"{source.path}: {sentence}" for source in audit.sources for sentence in _of_source(source, audit)]


def findings_of_training(audit: Audit, mixture: Mixture) -> list[str]:
    """The same of what is trained on, and then what its stage says of all sources together."""
    return [*findings(audit), *mixture.stage.advice(audit.tallies, mixture.training)]


def findings_of_evaluation(audit: Audit, mixture: Mixture) -> list[str]:
    """The same of what is evaluated, and then the metrics that it lacks.

    Args:
        mixture: what is trained on, by the same recipe.
    """
    lacking = mixture.stage.unmeasured(audit.tallies, mixture.training)
    reasons = {reason: [name for name in lacking if lacking[name] == reason] for reason in lacking.values()}
    return [
        *findings(audit),
        *(
            f"the evaluation has {reason}, so it does not measure {', '.join(names)}"
            for reason, names in reasons.items()
        ),
    ]


def first_keys(counts: dict[str, int]) -> str:
    """The most frequent keys with their counts."""
    named = ", ".join(f"{key} ({count:,})" for key, count in list(counts.items())[:KEYS_SHOWN])
    return named + (f" and {len(counts) - KEYS_SHOWN} more" if len(counts) > KEYS_SHOWN else "")


def _of_source(source: SourceAudit, audit: Audit) -> Iterator[str]:
    def share(count: int) -> str:
        return f"{count:,} of {source.rows:,} rows ({count / source.rows:.1%})"

    if len(source.forms) > 1:
        yield f"found rows of several formats: {first_keys(source.forms)}; set `format` if only one is right"
    if source.doubtful:
        yield (
            f"keys that were not read but may matter: {first_keys(source.doubtful)}; rename those to read with "
            "`columns`, and list those to leave out in `ignore`"
        )
    for reason, count in source.dropped.items():
        yield f"{share(count)} are dropped: {reason}"
    tokens = f"{source.truncated_prompt_tokens:,} of prompts and {source.truncated_answer_tokens:,} of answers"
    sentences = {
        "without_eos": "have an answer that does not end with EOS, so the model does not learn to stop there",
        "double_bos": "begin with BOS twice, because the text has its own; remove it from the text",
        "special_tokens": "have a special token, such as EOS, written in their text; the model sees the token there",
        "truncated_rows": f"are cut, losing {tokens} in tokens (data.long_prompts and data.long_answers decide)",
        "beyond_positions": f"are longer than the {audit.positions} positions of the network "
        "(max_position_embeddings); lower training.max_length",
        "exact_copies": "are exact copies of an earlier row",
        "near_copies": "are near copies of an earlier row",
        "same_answers": "have the same chosen and rejected answer, so they teach no preference",
    }
    for name, sentence in sentences.items():
        if count := getattr(source, name):
            yield f"{share(count)} {sentence}"
    for group, found in source.overlaps.items():
        if found["kept"]:
            what = "held-out prompts" if group == OWN else f"questions of {group}"
            seen = f"{found['prompts']:,} of {audit.groups[group]:,} were found"
            yield f"{share(found['kept'])} contain {what} ({seen}); set data.decontaminate to leave such rows out"
