"""The keywords that `forward` takes beside its named arguments; any other is an error, and reaches no kernel."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

# Where documents packed in a row begin and end, as collators say it. The first four are transformers' own names
# (`FlashAttentionKwargs`); `key_places` lets two answers share a prompt (`attention_backends.py`); `seq_idx` numbers
# the documents for other kinds of networks, and is only compared with the positions.
PACKING = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "key_places", "seq_idx")

LOSS = ("num_items_in_batch", "shift_labels")  # of transformers' loss function


def refuse_unknown(forward: Callable[..., Any], given: Mapping[str, Any], allowed: Iterable[str]) -> None:
    """Raise `TypeError` if a call of `forward` got keywords that it does not know.

    Args:
        given: what came beside the named arguments.
        allowed: names in `given` that are known.
    """
    if unknown := sorted(given.keys() - {*allowed}):
        named = [name for name in inspect.signature(forward).parameters if name not in ("self", "kwargs")]
        raise TypeError(
            f"{forward.__qualname__}: found unknown keywords {', '.join(unknown)}; "
            f"allowed: {', '.join([*named, 'return_dict', *allowed])}; correct or remove them"
        )
