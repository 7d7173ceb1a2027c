"""What a task makes of a row: its prompt, right answer and choices, as lm-eval computes them, and what can be wrong."""

from ast import literal_eval
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jinja2 import TemplateError

from olmoe_ft.data.rows import shown, shown_keys
from olmoe_ft.evaluation.task_rows import Rows
from olmoe_ft.evaluation.task_yaml import Problem, not_found
from olmoe_ft.reasons import one_line
from olmoe_ft.recipe import UserError
from olmoe_ft.recipe.wording import nearest

SHOWN = 5  # malformed rows; the others are counted
OWN_SCORERS = "olmoe_ft.evaluation.scorers."
PROMPT = ("doc_to_text", "doc_to_target", "doc_to_choice")

Read = Callable[[int], Any]
"""From the number of a row to what a key of the task makes of it."""


class Docs(NamedTuple):
    """The rows of a split after `process_docs`."""

    written: Sequence[Mapping[str, Any]]
    """As the file has them, so that a missing key is found."""
    filled: Any
    """As lm-eval has them: with null for the keys that only other rows have."""
    places: list[str]
    columns: list[str]


def docs_of(rows: Rows, filled: Any, change: Callable[..., Any] | None) -> Docs:
    """The rows of a split as a task has them.

    Args:
        filled: the dataset of the rows.
        change: the task's `process_docs`.
    Raises:
        UserError: `process_docs` fails.
    """
    if change is None:
        return Docs([row for _, row in rows], filled, [where for where, _ in rows], list(filled.features))
    try:
        filled = change(filled)
        written, columns = list(filled), list(filled.features)
    except Exception as error:  # the user's own function
        raise UserError(f"fails on the rows ({one_line(error)}); correct it") from None
    return Docs(written, filled, [f"row {number} of process_docs" for number in range(1, len(written) + 1)], columns)


def template_problems(values: Mapping[str, Any], docs: Docs, keys: Sequence[str]) -> Iterator[Problem]:
    """All rows of which a key cannot be computed."""
    for key in keys:
        value = values.get(key)
        if isinstance(value, str) and (wrong := _constant(key, value, docs.columns)):
            yield key, wrong
        elif isinstance(value, str) or callable(value):
            if (read := _reader(key, values, docs)) is not None:
                yield from ((key, problem) for problem in _each(read, docs.places))


def answer_problems(values: Mapping[str, Any], docs: Docs, examples: bool = False) -> Iterator[Problem]:
    """Right answers that are none of the choices: lm-eval counts every output as wrong there.

    Args:
        examples: whether these are worked examples, whose answers are only shown.
    """
    kind = values.get("output_type", "generate_until")
    if values.get("doc_to_choice") is None or kind not in ("multiple_choice", "generate_until"):
        return
    text, target, offered = (_reader(key, values, docs) for key in PROMPT)
    if text is None or target is None or offered is None or not docs.places:
        return
    marked = values.get("process_results") is None and not examples
    try:
        key, answer = ("doc_to_text", text) if isinstance(text(0), int) else ("doc_to_target", target)
        several = isinstance(answer(0), list)
    except Exception:  # reported with the templates
        return

    def check(number: int) -> None:
        try:
            answered, choices = answer(number), offered(number)
        except Exception:
            return
        if not isinstance(answered, int) and not marked:
            return
        among = range(len(choices)) if kind == "generate_until" else [*range(len(choices)), *choices]
        allowed = f"0 to {len(choices) - 1}{f', or one of {shown(choices)}' if kind == 'multiple_choice' else ''}"
        if several:
            among, allowed = range(len(choices)), f"as in the first row a list of numbers, 0 to {len(choices) - 1}"
        listed = answered if isinstance(answered, list) else [answered]
        if several != isinstance(answered, list) or not listed or any(one not in among for one in listed):
            raise UserError(f"the right answer is {shown(answered)}; allowed: {allowed}; correct one of the two")

    of_rows = any(isinstance(values.get(name), str) or callable(values.get(name)) for name in (key, "doc_to_choice"))
    yield from ((key, problem) for problem in _each(check, docs.places if of_rows else docs.places[:1]))


def _constant(key: str, text: str, columns: list[str]) -> str:
    """A message if a text is neither a key of the rows nor a template: lm-eval would put the same text for each row."""
    if not text.strip() or text in columns or "{{" in text or "{%" in text:
        return ""
    near = nearest(text, columns)
    if key != "doc_to_text" and not near:
        return ""  # an answer that is the same for all rows
    return f"found {shown(text)}, which is no key of the rows{near}, and no template; allowed: {shown_keys(columns)}"


def _reader(key: str, values: Mapping[str, Any], docs: Docs) -> Read | None:
    """How to compute what a key of the task is for a row; None where nothing can be checked."""
    value, written = values.get(key), docs.written
    if isinstance(value, str) and value in docs.columns:
        if key == "doc_to_choice":
            return lambda number: _offered(_present(written[number], value))
        return lambda number: _present(written[number], value)
    if isinstance(value, str):
        return _of_template(key, value, written, values.get("doc_to_choice") is not None)
    if callable(value):
        if value is not_found:
            return None
        if key == "process_results":  # the user's own may need more than an empty output
            own = getattr(value, "__module__", "").startswith(OWN_SCORERS)
            return (lambda number: value(docs.filled[number], [""])) if own else None
        if key == "doc_to_choice":
            return lambda number: _offered(value(docs.filled[number]))
        return lambda number: value(docs.filled[number])
    if key == "doc_to_choice":
        return lambda number: _offered(list(value.values()) if isinstance(value, dict) else value)
    return lambda number: value


def _of_template(key: str, text: str, written: Sequence[Mapping[str, Any]], choices: bool) -> Read | None:
    """How to render a template. lm-eval takes a list, and where there are choices a number, for what it looks like."""
    from lm_eval.utils import env

    try:
        template = env.overlay(finalize=_not_null).from_string(text)
    except TemplateError:
        return None  # reported with the keys
    if key == "doc_to_choice":
        return lambda number: _offered(literal_eval(template.render(**written[number])))

    def read(number: int) -> Any:
        rendered = template.render(**written[number])
        if choices and rendered.isdigit():
            return literal_eval(rendered)
        if key == "doc_to_target" and rendered[:1] == "[" and rendered[-1:] == "]":
            try:
                return literal_eval(rendered)
            except (SyntaxError, ValueError):
                return rendered
        return rendered

    return read


def _each(read: Read, places: list[str]) -> Iterator[str]:
    """A message for each of the first rows that cannot be read."""
    wrong = 0
    for number, place in enumerate(places):
        try:
            read(number)
        except UserError as error:
            reason = str(error)
        except Exception as error:  # of a template, or of the user's own function
            reason = f"{one_line(error)}; correct the row, or what the task does with it"
        else:
            continue
        wrong += 1
        if wrong <= SHOWN:
            yield f"{place}: {reason}"
    if wrong > SHOWN:
        yield f"and {wrong - SHOWN} more rows like these"


def _present(row: Mapping[str, Any], key: str) -> Any:
    if row.get(key) is None:
        raise UserError(f"has no `{key}`; found {shown_keys(row)}; add it, or take out the row")
    return row[key]


def are_choices(found: Any) -> bool:
    """Whether a value is what lm-eval can offer as choices."""
    return isinstance(found, list) and bool(found) and all(isinstance(one, str) and one for one in found)


def _offered(choices: Any) -> list[str]:
    if not are_choices(choices):
        raise UserError(f"found the choices {shown(choices)}; allowed: a list of texts, none of them empty")
    return choices


def _not_null(value: Any) -> Any:
    """Refuses what a template would write as the word `None`."""
    if value is None:
        raise ValueError("a value that the template writes is null")
    return value
