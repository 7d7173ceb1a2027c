"""How often each expert was chosen, as shares. L layers, T tokens, E experts, K experts per token."""

import numpy as np


def shares(counts: np.ndarray) -> np.ndarray:
    """How often each expert was chosen (..., L, E) -> its share of the layer's choices; 0 where there are none."""
    return counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)


def load_of(choices: np.ndarray, experts: int) -> np.ndarray:
    """Experts chosen (L, T, K) -> the share of the choices that each got (L, E)."""
    return shares(np.stack([np.bincount(layer.ravel(), minlength=experts) for layer in choices]))
