"""AdamW for bf16 weights that loses no update; docs/optimizer.md says how it stores its numbers.

`adamw` is the optimizer, `update` one step of it in PyTorch, `kernel` the same step in Triton, `layout` the bits that
both read and write, `sums` adds the gradients of several micro-batches, `choice` decides which optimizer a run gets,
`moved` measures the share of weights that change, `states` the size of the optimizer's states.
"""
