"""A tokenizer's chat template: what it writes for a conversation, and where in that text each answer stands."""

import logging
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from olmoe_ft.data.rows import RowError, shown

PROBE = [
    {"role": "system", "content": "a"},
    {"role": "user", "content": "b"},
    {"role": "assistant", "content": "c"},
    {"role": "user", "content": "d"},
    {"role": "assistant", "content": "e"},
]
# transformers warns of marks written in another way than its own; whether there are any is looked at here
logging.getLogger("transformers.utils.chat_template_utils").addFilter(
    lambda record: "return_assistant_tokens_mask" not in record.getMessage()
)
Messages = list[dict[str, str]]
Specials = tuple[tuple[str, str], ...]


class Rendered(NamedTuple):
    """A conversation as the template writes it."""

    text: str
    answers: list[tuple[int, int]]
    """First character and the one behind the last, of what is marked by `{% generation %}`."""

    def pieces(self) -> Iterator[tuple[str, int | None]]:
        """The text in pieces, cut where an answer begins or ends; each with the answer's number, None between them."""
        done = 0
        for number, (start, end) in enumerate(self.answers):
            yield self.text[done:start], None
            yield self.text[start:end], number
            done = end
        yield self.text[done:], None


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> Specials:
    """The names and texts of a tokenizer's special tokens, by which its template calls them."""
    return tuple((name, text) for name, text in tokenizer.special_tokens_map.items() if isinstance(text, str))


def render(conversations: Sequence[Messages], tokenizer: PreTrainedTokenizerBase) -> list[Rendered | RowError]:
    """What the template writes for each conversation, checked; an error where it refuses one or writes something else.

    Held for every row, whatever a recipe says: each assistant turn is marked once, a mark holds the turn's text as it
    stands and then what ends a turn, and the other turns stand in the text in their order.
    """
    template, special = str(tokenizer.chat_template), special_tokens(tokenizer)
    endings = answer_endings(template, special)
    try:
        found: Sequence[Rendered | RowError] = written(conversations, template, special)
    except TemplateError:  # of one of them: find out which
        found = [_one(messages, template, special) for messages in conversations]
    return [_checked(*row, endings) for row in zip(conversations, found, strict=True)]


def written(conversations: Sequence[Messages], template: str, special: Specials) -> list[Rendered]:
    """What a template writes, unchecked.

    Raises:
        TemplateError: it refuses one.
    """
    texts, answers = render_jinja_template(
        conversations, chat_template=template, return_assistant_tokens_mask=True, **dict(special)
    )
    return [Rendered(*row) for row in zip(texts, answers, strict=True)]


@cache
def answer_endings(template: str, special: Specials) -> frozenset[str]:
    """What the template writes behind an answer's text within its marks: the EOS, as a rule.

    Raises:
        RowError: it marks something else than the answers, or refuses every plain conversation.
    """
    endings, refused = set(), None
    for messages in (PROBE, PROBE[1:], PROBE[1:3]):
        try:
            [rendered] = written([messages], template, special)
        except TemplateError as error:  # of a system turn, say
            refused = error
            continue
        said = [turn["content"] for turn in messages if turn["role"] == "assistant"]
        marked = [rendered.text[start:end] for start, end in rendered.answers]
        if len(marked) != len(said) or not all(map(str.startswith, marked, said)):
            raise RowError(f"marks {shown(marked)} where the answers are {shown(said)}")
        endings |= {mark.removeprefix(text) for mark, text in zip(marked, said, strict=True)}
    if not endings:
        raise RowError(f"refuses plain conversations ({str(refused)[:200]})")
    return frozenset(endings)


def _one(messages: Messages, template: str, special: Specials) -> Rendered | RowError:
    try:
        return written([messages], template, special)[0]
    except TemplateError as error:
        return RowError(f"the tokenizer's chat template refuses it ({str(error)[:200]})")


def _checked(messages: Messages, rendered: Rendered | RowError, endings: frozenset[str]) -> Rendered | RowError:
    if isinstance(rendered, RowError):
        return rendered
    text, marks = rendered
    answers = [index for index, turn in enumerate(messages) if turn["role"] == "assistant"]
    if len(marks) != len(answers):
        return RowError(
            f"the tokenizer's chat template marks {len(marks)} answers to learn and the row has {len(answers)}"
        )
    place, remaining = 0, iter(marks)
    for index, turn in enumerate(messages):
        content = turn["content"]
        if turn["role"] == "assistant":
            start, end = next(remaining)
            if start < place or not text.startswith(content, start) or text[start + len(content) : end] not in endings:
                return RowError(
                    f"the tokenizer's chat template writes turn {index}, an answer, as {shown(text[start:end])} and "
                    f"not as it stands, {shown(content)}"
                )
            place = end
        else:
            found = text.find(content.strip(), place)
            if found < 0:
                return RowError(
                    f"the tokenizer's chat template leaves out turn {index}, {turn['role']}: {shown(content)}; "
                    "take it out of the row, or use a template that writes it"
                )
            place = found + len(content.strip())
    return rendered
