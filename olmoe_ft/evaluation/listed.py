"""What readers of `evaluation.json` rely on: the types of its values. A number as a text would fail much later."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from olmoe_ft.evaluation.score import When

MOST = 2**53  # of questions and steps, by far; beyond it a float is no longer exact


class _Strict(BaseModel):
    """No conversions: an evaluation's samples are found by its values as they are in the file."""

    model_config = ConfigDict(strict=True)


class _Score(_Strict):
    task: str
    metric: str
    value: float | str
    """A text where it is not finite."""
    n: int = Field(ge=0, le=MOST)
    shots: int
    template: str | None
    clean_n: int | None = Field(default=None, ge=0, le=MOST)
    higher_is_better: bool | None = None


class _Settings(_Strict):
    tasks: list[str]
    questions: dict[str, str] = Field(default_factory=dict)
    cut_prompts: dict[str, int] = Field(default_factory=dict)
    short_outputs: dict[str, int] = Field(default_factory=dict)


class _Evaluation(_Strict):
    model: str
    step: int | None = Field(ge=0, le=MOST)
    when: When
    settings: _Settings
    seconds: float
    new_tokens: int
    generating: float
    scores: list[_Score]
    samples: int


def check_listed(values: Any) -> None:
    """Check one evaluation of the file; the numbers of its scores are `Score.read`'s to check.

    Raises:
        ValueError: a value is missing or of another type.
    """
    _check(_Evaluation, values)


def check_score(values: Any) -> None:
    """The same of a score, as `summary.json` has them too."""
    _check(_Score, values)


def _check(kind: type[_Strict], values: Any) -> None:
    try:
        kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
