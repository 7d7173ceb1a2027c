"""What an evaluation asks of a model, and what comes back; whoever answers (`engine.py`, vLLM) takes these."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

Expert = tuple[int, int, float]
"""Layer, expert, and its share of the layer's choices."""


@dataclass(frozen=True)
class Ask:
    """A text to be continued."""

    tokens: tuple[int, ...]
    """At least one."""
    max_new_tokens: int
    until: tuple[str, ...] = ()
    """Texts at which the output ends; they are not part of it. Tokens that end a turn always end it."""
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    seed: int = 0
    """Of sampling. The same request with the same seed has the same answer in any batch and on any process."""
    task: str = ""
    """Whose question it is."""


class Said(NamedTuple):
    """What the model has written."""

    text: str
    """Without special tokens, up to the first of `until`."""
    tokens: tuple[int, ...]
    """As generated, with the token that ended it."""
    experts: list[Expert]
    """The three busiest for these tokens."""


@dataclass(frozen=True)
class Pair:
    """A text and how it may go on, to be scored."""

    context: tuple[int, ...]
    """At least one token."""
    continuation: tuple[int, ...]
    """At least one token."""
    task: str = ""
    """Whose question it is."""


class Weighed(NamedTuple):
    """How likely a continuation is."""

    logprob: float
    """The sum over its tokens, in nats."""
    greedy: bool
    """Whether each of its tokens is the most likely one."""
    experts: list[Expert]


class Engine(Protocol):
    """Answers requests: in their order, all of them in every process."""

    name: str
    dtype: str
    """Of the weights, by torch's name."""
    max_length: int
    """The network's positions."""
    new_tokens: int
    """Generated so far."""
    generating: float
    """Seconds spent in `generate` so far."""

    def generate(self, asks: Sequence[Ask], batch_size: int | None = None) -> list[Said]: ...

    def weigh(self, pairs: Sequence[Pair]) -> list[Weighed]: ...

    def loads(self) -> dict[str, list[list[int]]]:
        """How often each expert was chosen for the tokens generated or scored so far, by task: of each layer, of each
        expert. The same in every process, each of which must ask. Empty where the engine does not see it."""
        ...
