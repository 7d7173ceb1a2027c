"""Evaluations for tests of what is made of them."""

from typing import Any

from olmoe_ft.evaluation.score import Evaluation, Sample, Score, When


def sample(id: int, task: str = "sums", right: bool | None = True, **others: Any) -> Sample:
    values: dict[str, Any] = {
        "prompt": f"<|user|>\nWhat is {id} + {id}?\n<|assistant|>\n",
        "output": str(2 * id) if right else "7",
        "expected": str(2 * id),
        "metrics": {"exact_match": float(bool(right))},
        "tokens": 2,
        "experts": [[1, 3, 0.5], [0, 2, 0.25]],
    }
    return Sample(task=task, id=id, right=right, **(values | others))


def evaluation(when: When, step: int | None, samples: list[Sample], **others: Any) -> Evaluation:
    """Its scores are the shares of right samples by task."""
    scores = []
    for task in sorted({one.task for one in samples}):
        marks = [bool(one.right) for one in samples if one.task == task]
        scores.append(Score(task, "exact_match", sum(marks) / len(marks), 0.125, len(marks), 0, None))
    settings = {"seed": 1, "tasks": [score.task for score in scores]}
    values: dict[str, Any] = {
        "model": "runs/here",
        "settings": settings,
        "seconds": 4.0,
        "generating": 2.0,
        "new_tokens": 8,
    }
    return Evaluation(when=when, step=step, scores=scores, samples=samples, **(values | others))
