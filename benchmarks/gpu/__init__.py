"""The project's own run on a GPU, `make gpu`: the most valuable evidence first, at most 8 minutes. See docs/gpu.md.

`run` starts one process a part and gathers what it finds; `part` is that process; `findings` is what is found.

| part | module | asks |
| --- | --- | --- |
| machine | `machine` | which card, which versions |
| correctness | `correctness`: `products`, `kernels`, `mixtures`, `attention`, `head` | is every operation right |
| tests | `pytests` | do the tests for GPUs and of kernels pass |
| optimizer | `optimizer` | is the optimizer of bf16 weights right, and how fast |
| training | `training` | does `olmoe-ft train` go on where it was killed |
| waits | `waits` | where does a step wait, what runs in it |
| rates | `rates` | how fast is each operation |
| speed | `speed_lines` | the lines of the benchmark |
| memory | `memory` | what was predicted, beside what was measured |

`prepare` gathers what a machine without a network lacks; `exact` compares results, element by element.
"""
