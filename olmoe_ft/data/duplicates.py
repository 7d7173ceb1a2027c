"""Find rows that are exact or near copies of earlier ones (MinHash; Broder 1997).

The signatures are datasketch's. Its index keeps Python objects for every row and band, which is gigabytes for a million
rows, so here the bands of all rows are sorted instead.
"""

from collections.abc import Sequence

import numpy as np
import xxhash
from datasets import Dataset
from datasketch import MinHash

from olmoe_ft.data.words import ngrams

SHINGLE = 5  # words
PERMUTATIONS = 128
BANDS = 16  # of 8 values: rows of similarity s share one with probability 1 - (1 - s^8)^16, which is 0.95 at 0.8
NEAR = 0.8  # rows are near copies from this estimated Jaccard similarity of their shingles on
NOTHING = 2**32 - 1  # signature values of a row without words, which counts as no copy of another
BLOCK = 10_000  # rows whose signatures are in memory at once


def signatures(rows: Sequence[list[str]], labels: Sequence[bool | None]) -> list[np.ndarray]:
    """A MinHash signature, (128,) uint32, of each row's words.

    Args:
        labels: of each row, if its answer is judged; rows with different labels have no shingle in common.
    """
    shingles = [
        [(run if label is None else f"{label} {run}").encode() for run in ngrams(row, SHINGLE)]
        for row, label in zip(rows, labels, strict=True)
    ]
    return [
        minhash.hashvalues for minhash in MinHash.bulk(shingles, num_perm=PERMUTATIONS, hashfunc=xxhash.xxh32_intdigest)
    ]


def copies(rows: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Which rows are exact copies of an earlier row, and which others are near copies of one, as two (rows,) masks.

    Rows with different labels are no copies: of a long prompt with two short answers the better and the worse one.

    Args:
        rows: with the columns `row_hash` (int64, of all texts and the label) and `signature`.
    """
    columns = rows.select_columns(["row_hash", "signature"]).with_format("numpy")
    hashes = np.empty(len(rows), np.int64)
    bands = np.empty((len(rows), BANDS), np.uint64)
    weights = np.random.default_rng(0).integers(1, 2**63, PERMUTATIONS // BANDS, np.uint64) | np.uint64(1)
    for start in range(0, len(rows), BLOCK):
        block = columns[start : start + BLOCK]
        hashes[start : start + BLOCK] = block["row_hash"]
        values = block["signature"].astype(np.uint64).reshape(-1, BANDS, PERMUTATIONS // BANDS)
        bands[start : start + BLOCK] = (values * weights).sum(axis=2)  # a hash of the band, modulo 2^64
    exact = _repeated(hashes)[1]
    near = np.zeros(len(rows), bool)
    for band in range(BANDS):
        first, repeated = _repeated(bands[:, band])
        open_rows = np.flatnonzero(repeated & ~exact & ~near)
        for start in range(0, len(open_rows), BLOCK):
            candidates = open_rows[start : start + BLOCK]
            mine, other = (columns[index]["signature"] for index in (candidates, first[candidates]))
            near[candidates] = ((mine == other).mean(axis=1) >= NEAR) & (mine != NOTHING).any(axis=1)
    return exact, near


def _repeated(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each key the index where it appears first, and whether that is an earlier one."""
    _, firsts, inverse = np.unique(keys, return_index=True, return_inverse=True)
    first = firsts[inverse]
    return first, first < np.arange(len(keys))
