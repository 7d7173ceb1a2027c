"""Whether more or less of a score is better."""

from olmoe_ft.evaluation.score import Score

MORE = (
    "exact_match", "regex_match", "valid_json", "acc", "acc_norm", "acc_bytes", "acc_mutual_info", "acc_all", "mcc",
    "f1", "bleu", "chrf", "chrf++", "pass@1", "pass@10",
)  # fmt: skip
LESS = (
    "perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "brier_score", "ter", "timed_out",
)  # fmt: skip
"""The names of lm-eval's metrics and of ours, for scores of older files, which do not say it."""


def higher_is_better(*scores: Score) -> bool | None:
    """Of one metric, of one or more evaluations.

    Returns:
        what the scores say; where none does, what is known of the metric's name; None where neither is better, that is
        not known, or the scores say both.
    """
    said = {score.higher_is_better for score in scores} - {None}
    if said:
        return said.pop() if len(said) == 1 else None
    named = {direction_by_name(score.metric) for score in scores}
    return named.pop() if len(named) == 1 else None


def direction_by_name(metric: str) -> bool | None:
    """What the name of a metric says, with or without a filter behind a slash."""
    name = metric.partition("/")[0]
    return True if name in MORE else False if name in LESS else None
