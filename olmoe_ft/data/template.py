"""A tokenizer's chat template: the text it writes for a conversation, and where each answer is in that text."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import TemplateError, TemplateSyntaxError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from olmoe_ft.data.confined import TooMuchError, confined
from olmoe_ft.data.rows import RowError, shown
from olmoe_ft.recipe import UserError

PROBE = [
    {"role": "system", "content": "a"},
    {"role": "user", "content": "b"},
    {"role": "assistant", "content": "c"},
    {"role": "user", "content": "d"},
    {"role": "assistant", "content": "e"},
]
CHAT_TEMPLATE = (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")
"""OLMoE's own."""
LONGEST = 1 << 20  # characters, plus 100 times those of the conversation
logging.getLogger("transformers.utils.chat_template_utils").addFilter(
    lambda record: "return_assistant_tokens_mask" not in record.getMessage()
)
Messages = list[dict[str, str]]
Specials = tuple[tuple[str, str], ...]


class Rendered(NamedTuple):
    """A conversation as the template writes it."""

    text: str
    answers: list[tuple[int, int]]
    """Start and end (exclusive) of each text that is marked by `{% generation %}`."""

    def pieces(self) -> Iterator[tuple[str, int | None]]:
        """The text, cut where an answer begins or ends; each piece with the number of its answer, or None."""
        done = 0
        for number, (start, end) in enumerate(self.answers):
            yield self.text[done:start], None
            yield self.text[start:end], number
            done = end
        yield self.text[done:], None


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> Specials:
    """The names and texts of a tokenizer's special tokens; a template uses these names."""
    return tuple((name, text) for name, text in tokenizer.special_tokens_map.items() if isinstance(text, str))


def render(conversations: Sequence[Messages], tokenizer: PreTrainedTokenizerBase) -> list[Rendered | RowError]:
    """What the template writes for each conversation, checked; an error if it refuses one or writes something else.

    This holds for every row, whatever the recipe says: each assistant turn is marked once; a mark contains the turn's
    unchanged text and then the end of the turn; the other turns appear in the text, in order.

    Raises:
        UserError: the template takes too long, or writes too much.
    """
    template, special = str(tokenizer.chat_template), special_tokens(tokenizer)
    endings = answer_endings(template, special)
    found = _written_by(tokenizer, conversations)
    return [_checked(*row, endings) for row in zip(conversations, found, strict=True)]


def template_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """The first 12 digits of the SHA-256 of a tokenizer's chat template."""
    return hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()[:12]


def prompts(conversations: Sequence[Messages], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What the template writes for each conversation, up to the answer that the model should write.

    Raises:
        UserError: it refuses one, takes too long, or writes too much.
    """
    found = _written_by(tokenizer, conversations, add_generation_prompt=True)
    if refused := next((one for one in found if isinstance(one, TemplateError)), None):
        raise UserError(
            f"the tokenizer's chat template refuses a conversation ({str(refused)[:200]}); correct the template"
        )
    return [one.text for one in found if isinstance(one, Rendered)]


def _written_by(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Messages], **options: bool
) -> list[Rendered | TemplateError]:
    try:
        return written(conversations, str(tokenizer.chat_template), special_tokens(tokenizer), **options)
    except UserError as error:
        raise UserError(f"{tokenizer.name_or_path}: {error}") from None


def written(
    conversations: Sequence[Messages], template: str, special: Specials, **options: bool
) -> list[Rendered | TemplateError]:
    """What a template writes for each conversation, unchecked, or why it refuses it.

    A template is a program. It runs in jinja's sandbox. One that comes with a tokenizer also runs in a separate process
    with limits on time and memory.

    Raises:
        UserError: it takes too long, or writes too much.
    """

    def write(messages: Messages) -> Any:
        try:
            texts, marks = render_jinja_template(
                [messages], chat_template=template, return_assistant_tokens_mask=True, **dict(special), **options
            )
        except TemplateSyntaxError as error:
            return [error.message, error.lineno]
        except MemoryError:
            raise
        except Exception as error:  # a line of the template can raise anything
            return [str(error) or type(error).__name__, None]
        most = LONGEST + 100 * sum(len(turn["content"]) for turn in messages)
        if len(texts[0]) > most:
            raise TooMuchError(f"writes {len(texts[0]):,} characters for a conversation; allowed: at most {most:,}")
        return {"text": texts[0], "answers": marks[0]}

    try:
        found = [*(map if template == CHAT_TEMPLATE else confined)(write, conversations)]
    except TooMuchError as error:
        raise UserError(
            f"the tokenizer's chat template {error}; correct it (chat_template.jinja, or `chat_template` in "
            "tokenizer_config.json), or remove it to use OLMoE's"
        ) from None
    _compile(template)
    return [_read(one) for one in found]


@cache
def _compile(template: str) -> None:
    """Put the template in transformers' cache before forking. The confined process has compiled it, so it is safe."""
    with suppress(Exception):  # a template that refuses every conversation
        render_jinja_template([], chat_template=template)


def _read(answer: Any) -> Rendered | TemplateError:
    if isinstance(answer, dict):
        return Rendered(answer["text"], [(start, end) for start, end in answer["answers"]])
    message, line = answer
    return TemplateError(message) if line is None else TemplateSyntaxError(message, line)


@cache
def answer_endings(template: str, special: Specials) -> frozenset[str]:
    """What the template writes after an answer's text within its marks, usually the EOS.

    Raises:
        RowError: it marks something else than the answers, or refuses every plain conversation.
    """
    endings, refused = set(), None
    for messages in (PROBE, PROBE[1:], PROBE[1:3]):
        [rendered] = written([messages], template, special)
        if isinstance(rendered, TemplateError):  # because of a system turn, for example
            refused = rendered
            continue
        answers = [turn["content"] for turn in messages if turn["role"] == "assistant"]
        marked = [rendered.text[start:end] for start, end in rendered.answers]
        if len(marked) != len(answers) or not all(map(str.startswith, marked, answers)):
            raise RowError(f"marks {shown(marked)} where the answers are {shown(answers)}")
        endings |= {span.removeprefix(text) for span, text in zip(marked, answers, strict=True)}
    if not endings:
        raise RowError(f"refuses plain conversations ({str(refused)[:200]})")
    return frozenset(endings)


def _checked(messages: Messages, rendered: Rendered | TemplateError, endings: frozenset[str]) -> Rendered | RowError:
    if isinstance(rendered, TemplateError):
        return RowError(f"the tokenizer's chat template refuses it ({str(rendered)[:200]})")
    text, marks = rendered
    answers = [index for index, turn in enumerate(messages) if turn["role"] == "assistant"]
    if len(marks) != len(answers):
        return RowError(
            f"the tokenizer's chat template marks {len(marks)} answers to learn, but the row has {len(answers)}"
        )
    place, remaining = 0, iter(marks)
    for index, turn in enumerate(messages):
        content = turn["content"]
        if turn["role"] == "assistant":
            start, end = next(remaining)
            if start < place or not text.startswith(content, start) or text[start + len(content) : end] not in endings:
                return RowError(
                    f"the tokenizer's chat template changes turn {index}, an answer, from {shown(content)} to "
                    f"{shown(text[start:end])}"
                )
            place = end
        else:
            found = text.find(content.strip(), place)
            if found < 0:
                return RowError(
                    f"the tokenizer's chat template leaves out turn {index}, {turn['role']}: {shown(content)}; "
                    "remove it from the row, or use a template that writes it"
                )
            place = found + len(content.strip())
    return rendered
