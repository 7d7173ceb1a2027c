"""What in an audit's numbers is worth a look, as sentences."""

from collections.abc import Iterator

from olmoe_ft.data.audit import Audit, SourceAudit
from olmoe_ft.data.heldout import OWN
from olmoe_ft.data.rows import KEYS_SHOWN


def findings(audit: Audit) -> list[str]:
    """Everything that should make one stop and look, source by source."""
    return [f"{source.path}: {sentence}" for source in audit.sources for sentence in _of_source(source, audit)]


def first_keys(counts: dict[str, int]) -> str:
    """The most frequent keys with their counts."""
    named = ", ".join(f"{key} ({count:,})" for key, count in list(counts.items())[:KEYS_SHOWN])
    return named + (f" and {len(counts) - KEYS_SHOWN} more" if len(counts) > KEYS_SHOWN else "")


def _of_source(source: SourceAudit, audit: Audit) -> Iterator[str]:
    def share(count: int) -> str:
        return f"{count:,} of {source.rows:,} rows ({count / source.rows:.1%})"

    if len(source.forms) > 1:
        yield f"rows of several formats: {first_keys(source.forms)}; name the `format` if only one is right"
    if source.doubtful:
        yield (
            f"not read, and may matter: {first_keys(source.doubtful)}; rename what is to be read with `columns`, and "
            "name what is not with `ignore`"
        )
    for reason, count in source.dropped.items():
        yield f"{share(count)} are dropped: {reason}"
    tokens = f"{source.truncated_prompt_tokens:,} of prompts and {source.truncated_answer_tokens:,} of answers"
    sentences = {
        "without_eos": "do not end every answer with EOS, so the model does not learn to stop there",
        "double_bos": "begin with BOS twice: the text brings one of its own",
        "special_tokens": "have a special token, such as EOS, written in their text; the model sees the token there",
        "truncated_rows": f"are cut, by {tokens} in tokens (data.long_prompts, data.long_answers)",
        "beyond_positions": f"are longer than the {audit.positions} positions the network was made for "
        "(max_position_embeddings); lower training.max_length",
        "exact_copies": "stand word for word in an earlier row",
        "near_copies": "are near copies of an earlier row",
        "same_answers": "have the same chosen and rejected answer, and teach no preference",
    }
    for name, sentence in sentences.items():
        if count := getattr(source, name):
            yield f"{share(count)} {sentence}"
    for group, found in source.overlaps.items():
        if found["kept"]:
            what = "held-out prompts" if group == OWN else f"questions of {group}"
            seen = f"{found['prompts']:,} of {audit.groups[group]:,} were found"
            yield f"{share(found['kept'])} hold {what} ({seen}; data.decontaminate leaves such rows out)"
