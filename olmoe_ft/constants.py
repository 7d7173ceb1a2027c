"""Numbers and choices that several packages share. Imports nothing."""

from typing import Literal

MIB, GIB = 2**20, 2**30

IGNORED = -100  # the label of a token that no loss is taken of, for torch, transformers and TRL alike

# What a recipe's `router` section may say, and the losses understand.
Scope = Literal["layer", "pooled"]
Tokens = Literal["non_padding", "all", "completion"]
BalanceOver = Literal["micro_batch", "ranks", "accumulation"]
