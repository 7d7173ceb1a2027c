"""A key/value cache of rows that begin with prompts of different lengths and leave when they are done.

Prompts are read without padding, packed one behind the other, and are laid out so that all end in the same column.
Then every step fills one more column. A row that is done gives its place to the last one: nothing else moves.

Shapes: L layers, B rows at the start, R rows now, M key heads, D head size, C columns, T tokens of some prompts.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import Cache, DynamicLayer

COLUMNS = 256  # that memory grows by
ALIGNED = 8  # columns of a mask in 16 bit


class RowCache(Cache):
    """One tensor (L, 2, B, M, C, D), keys before values. Rows up to `rows`, columns `start` to `end` are in use."""

    def __init__(self, layers: int, lengths: Sequence[int], device: torch.device) -> None:
        """For prompts of these lengths. What else must be known of the shape comes with the first keys."""
        super().__init__(layers=[DynamicLayer() for _ in range(layers)])  # tell transformers that they are no windows
        self.rows, self.width = len(lengths), max(lengths)
        self.first = [self.width - length for length in lengths]  # each row's first column
        self.start, self.end = min(self.first), self.width
        self.memory: Tensor | None = None
        columns = torch.arange(self.width, device=device)
        self.visible = columns >= torch.tensor(self.first, device=device).unsqueeze(1)  # (B, C)
        self.hidden: Tensor | None = None  # what is added to the scores, (B, 1, 1, C)
        self.places: tuple[Tensor, Tensor] | None = None  # while prompts are read: row and column of their tokens
        # in a step, of each layer's keys and values: what is in use (R, M, C, D), and of that the new column
        self.used: tuple[Tensor, ...] = ()
        self.column: tuple[Tensor, ...] = ()

    @property
    def reads_prompts(self) -> bool:
        """Whether the pass that goes on is over packed prompts, which see nothing that is cached."""
        return self.places is not None

    def begin_prompts(self, rows: Sequence[int]) -> None:
        """The next forward pass reads the prompts of these rows, packed into one."""
        chosen = torch.zeros_like(self.visible[:, :1])
        chosen[list(rows)] = True
        row, column = torch.where(self.visible & chosen)
        self.places = row, column

    def begin_step(self) -> None:
        """The next forward pass reads one token of every row, into a new column."""
        assert self.memory is not None and self.hidden is not None
        self.places = None
        self.end += 1
        if self.end > self.memory.shape[-2]:
            self.memory = pad(self.memory[:, :, : self.rows], (0, 0, 0, COLUMNS))
        if self.end > self.visible.shape[-1]:
            self.visible = pad(self.visible, (0, COLUMNS), value=True)
            self.hidden = pad(self.hidden, (0, COLUMNS))
        rows = self.memory[:, :, : self.rows].flatten(0, 1)  # (2 L, R, M, C, D)
        self.used = rows[..., self.start : self.end, :].unbind()
        self.column = rows[..., self.end - 1 : self.end, :].unbind()

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_, **__) -> tuple[Tensor, Tensor]:
        """Keys and values of prompts (1, M, T, D), which come back as they are; or of a step, (R, M, 1, D).

        Returns:
            what the pass attends to; in a step all that is cached of each row, (R, M, C, D).
        """
        if self.memory is None:
            self._allocate(key_states)
        assert self.memory is not None
        if self.places is not None:
            for stored, new in zip(self.memory[layer_idx], (key_states, value_states), strict=True):
                stored.transpose(1, 2)[self.places] = new[0].transpose(0, 1).to(stored.dtype)  # (T, M, D)
            return key_states, value_states
        place = 2 * layer_idx
        self.column[place].copy_(key_states)
        self.column[place + 1].copy_(value_states)
        return self.used[place], self.used[place + 1]

    def _allocate(self, keys: Tensor) -> None:
        _, heads, _, size = keys.shape
        shape = len(self.layers), 2, self.rows, heads, self.width + COLUMNS, size
        self.memory = keys.new_zeros(shape)  # a column without content may hold anything but NaN
        hidden = torch.zeros_like(self.visible, dtype=keys.dtype).masked_fill_(~self.visible, -torch.inf)
        self.hidden = hidden[:, None, None]

    def mask(self, as_scores: bool) -> Tensor:
        """Who sees what in a step: (R, 1, 1, C), to be added to the scores; or (R, C), True for content."""
        assert self.hidden is not None
        if as_scores:
            return self.hidden[: self.rows, ..., self.start : self.end]
        return self.visible[: self.rows, self.start : self.end]

    def keep(self, stays: Sequence[int]) -> list[int]:
        """Take all rows out but some; each gap is closed by the last row.

        Returns:
            of each row in the new order, where it was before.
        """
        assert self.memory is not None and self.hidden is not None
        was = list(range(self.rows))
        for place in sorted({*was} - {*stays}, reverse=True):  # the last row then stays, or is this one
            last = was.pop()
            if place < len(was):
                used = slice(self.first[last], self.end)
                self.memory[:, :, place, :, used] = self.memory[:, :, len(was), :, used]
                was[place] = last
        self.rows, self.first = len(was), [self.first[row] for row in was]
        # CUDA's attention wants masks at whole 16 bytes; the columns more are hidden
        self.start = min(self.first, default=self.end) // ALIGNED * ALIGNED
        self.visible, self.hidden = self.visible[was], self.hidden[was]
        return was

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Of what is cached before the pass that goes on."""
        return 0 if self.reads_prompts else self.end - 1 - self.start

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Of what the pass attends to: its width, and where that begins."""
        return self.get_seq_length() + query_length, 0
