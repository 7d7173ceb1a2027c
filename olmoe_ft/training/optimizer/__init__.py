"""AdamW for bf16 weights that loses no update: how it keeps its numbers is in docs/optimizer.md.

`adamw` is the optimizer, `update` one step of it in PyTorch, `kernel` the same step in Triton, `layout` the bits that
both read and write, `sums` the gradients of several micro-batches, `choice` which optimizer a run gets and what is said
of it, `moved` the share of weights that change.
"""
