"""The two error classes that users see: what is wrong with their input, and what ended a run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class UserError(ValueError):
    """A recipe, a data file or an argument is wrong: everything that was found, one message a line.

    Attributes:
        messages: at least one, as `<place>: found <what>; allowed: <a, b>; <what to do>`.
    """

    def __init__(self, messages: str | Sequence[str]) -> None:
        self.messages = [messages] if isinstance(messages, str) else list(messages)
        super().__init__(self.messages)  # one argument, so that the error survives pickling between processes

    def __str__(self) -> str:
        return "\n".join(self.messages)


RecipeError = UserError  # its name where a recipe is read (olmoe_ft.recipe)


class Unreachable(UserError):
    """What a recipe names is on the Hub and cannot be reached, or is a run that does not exist yet."""


class RunError(RuntimeError):
    """A run with a valid recipe that cannot continue, for a reason that one sentence can say: exit code 1."""


@contextmanager
def gathered(messages: list[str]) -> Iterator[None]:
    """Add the messages of a UserError in the block to the list, and continue after the block."""
    try:
        yield
    except UserError as error:
        messages += error.messages
