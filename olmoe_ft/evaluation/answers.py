"""The task `answers`: held-out prompts with known answers, `data.answers` of a recipe or any file of such rows.

Exact match of greedy answers, by skill, and the share of each style. It needs no harness.
"""

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from olmoe_ft.evaluation.answered import Answered, Mark
from olmoe_ft.evaluation.questions import Question
from olmoe_ft.evaluation.requests import Ask, Engine
from olmoe_ft.evaluation.score import Outcome, Sample, Score, digest

if TYPE_CHECKING:  # torch and transformers take seconds to import
    from transformers import PreTrainedTokenizerBase

EXACT, STYLE = "exact_match", "style_"


@dataclass(frozen=True)
class AnswersTask:
    """Questions under a name, and how long an answer may be."""

    name: str
    questions: list[Question]
    max_new_tokens: int
    batch_size: int | None = None
    """Questions at once; None is the engine's."""

    def digest(self) -> str:
        """Of all that is asked."""
        return digest([[asdict(question) for question in self.questions], self.max_new_tokens])

    def put(
        self, engine: Engine, tokenizer: "PreTrainedTokenizerBase", chat: bool = True, limit: int | None = None
    ) -> Outcome:
        """Put the questions, and mark the answers.

        Args:
            chat: whether they are put through the chat template; else what the user says is the prompt.
            limit: use only the first questions; None takes all.
        """
        from olmoe_ft.data.template import prompts, template_hash

        questions = self.questions[:limit]
        if chat:
            texts = prompts([question.prompt for question in questions], tokenizer)
        else:
            texts = ["\n".join(question.texts()) for question in questions]
        encoded = tokenizer(texts, add_special_tokens=not chat)["input_ids"]  # the template has written them
        said = engine.generate(
            [Ask(tuple(ids), self.max_new_tokens, task=self.name) for ids in encoded], self.batch_size
        )
        marks = [question.mark(one.text) for question, one in zip(questions, said, strict=True)]
        samples = [
            Sample(
                task=self.name,
                id=index,
                prompt=text,
                output=one.text,
                expected=question.answer,
                right=mark.right,
                metrics={EXACT: float(mark.right)},
                tokens=len(one.tokens),
                experts=[list(expert) for expert in one.experts],
                document=digest(asdict(question)),
            )
            for index, (question, text, one, mark) in enumerate(zip(questions, texts, said, marks, strict=True))
        ]
        documents = [{"prompt": question.texts()} for question in questions]
        scores = self._scores(questions, marks, template_hash(tokenizer) if chat else None)
        return Outcome(scores, samples, [*documents], headline=[self.name])

    def _scores(self, questions: list[Question], marks: list[Mark], template: str | None) -> list[Score]:
        styles = [style for question in questions for style in question.frames]
        answered = Answered.of([(one.skill, mark) for one, mark in zip(questions, marks, strict=True)], styles)
        counts = {skill: sum(one.skill == skill for one in questions) for skill in answered.skills}
        shares = {
            EXACT: (answered.exact_match, answered.count),
            **{f"{EXACT}/{skill}": (share, counts[skill]) for skill, share in answered.skills.items()},
            **{f"{STYLE}{style}": (share, answered.count) for style, share in answered.styles.items()},
        }
        return [
            Score(
                self.name,
                metric,
                value,
                stderr_of_share(value, n),
                n,
                shots=0,
                template=template,
                higher_is_better=None if metric.startswith(STYLE) else True,
            )
            for metric, (value, n) in shares.items()
        ]


def stderr_of_share(share: float, n: int) -> float | None:
    """The standard error of a mean of n zeros and ones, from their own spread (n - 1), as lm-eval has it."""
    return math.sqrt(share * (1 - share) / (n - 1)) if n > 1 else None


def answered(task: str, scores: list[Score]) -> Answered | None:
    """What a summary says of the answers to held-out prompts; None where `scores` have no such task."""
    values = {score.metric: score for score in scores if score.task == task}
    if EXACT not in values:
        return None
    parts = {metric: score.value for metric, score in values.items()}
    return Answered(
        exact_match=values[EXACT].value,
        styles={name.removeprefix(STYLE): share for name, share in parts.items() if name.startswith(STYLE)},
        skills={name.partition("/")[2]: share for name, share in parts.items() if name.startswith(f"{EXACT}/")},
        count=values[EXACT].n,
    )
