"""Triton: the experts' rows back in the tokens' order, weighted and summed, in one reading.

Shapes: T tokens, K experts per token, R = T·K rows, H hidden.
"""

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


def combine(rows: Tensor, place: Tensor, weights: Tensor | None) -> Tensor:
    """`y[t] = sum_k w[t, k] rows[place[t, k]]`, products rounded to the dtype of rows, summed in fp32.

    rows (R, H) contiguous, place (T, K), weights (T, K) or None for ones -> (T, H).
    """
    (tokens, per_token), hidden = place.shape, rows.shape[1]
    out = rows.new_empty(tokens, hidden)
    if tokens:
        grid = tokens, triton.cdiv(hidden, BLOCK)
        given = rows if weights is None else weights.contiguous()  # any pointer will do where it is not read
        _combine[grid](rows, place, given, out, hidden, EACH=per_token, WEIGHTED=weights is not None, BLOCK=BLOCK)
    return out


@triton.jit
def _combine(rows, place, weights, out, hidden, EACH: tl.constexpr, WEIGHTED: tl.constexpr, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < hidden
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for expert in tl.static_range(EACH):  # unrolled, so that all rows are asked for at once
        row = tl.load(place + token * EACH + expert)
        values = tl.load(rows + row * hidden + column, mask=inside, other=0.0).to(tl.float32)
        if WEIGHTED:
            weight = tl.load(weights + token * EACH + expert).to(tl.float32)
            values = (values * weight).to(out.dtype.element_ty).to(tl.float32)
        total += values
    tl.store(out + token * hidden + column, total.to(out.dtype.element_ty), mask=inside)
