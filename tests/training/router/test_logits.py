"""Which tokens count, in what TRL's collators make."""

import pytest
import torch
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from olmoe_ft.training.router.logits import counted_tokens

PAD = 1
ROWS = [
    {"input_ids": [9, 3, 4, 5], "labels": [-100, -100, 4, 5]},
    {"input_ids": [9, 7], "labels": [-100, 7]},
]
PAIR = [{"prompt_ids": [9, 3], "chosen_ids": [4, 5, 6], "rejected_ids": [7]}]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ("non_padding", [1, 1, 1, 1, 1, 1, 0, 0]),
        ("completion", [0, 0, 1, 1, 0, 1, 0, 0]),
        ("all", None),
    ],
)
def test_padded_rows(tokens, expected):
    batch = DataCollatorForLanguageModeling(pad_token_id=PAD)(ROWS)
    assert_counted(counted_tokens(batch, tokens, PAD), expected)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ("non_padding", [1, 1, 1, 1, 1, 1, 1, 1, 1, 0]),
        ("completion", [0, 0, 1, 1, 0, 1, 0, 0, 0, 0]),
        ("all", None),
    ],
)
@pytest.mark.parametrize("pad", [PAD, 9])  # 9 also begins every row: only what fills up is padding
def test_packed_rows_filled_up_to_a_multiple(tokens, expected, pad):
    """Rows of 4, 2 and 3 tokens make 9, one short of a multiple of 5."""
    rows = [*ROWS, {"input_ids": [9, 8, 8], "labels": [-100, -100, -100]}]
    batch = DataCollatorForLanguageModeling(pad_token_id=pad, padding_free=True, pad_to_multiple_of=5)(rows)
    assert batch["input_ids"].shape == (1, 10) and "attention_mask" not in batch
    assert_counted(counted_tokens(batch, tokens, pad), expected)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ("non_padding", [1, 1, 1, 1, 1, 1, 1, 1, 0, 0]),
        ("completion", [0, 0, 1, 1, 1, 0, 0, 1, 0, 0]),
        ("all", None),
    ],
)
def test_pairs_count_chosen_and_rejected(tokens, expected):
    batch = DataCollatorForPreference(pad_token_id=PAD)(PAIR)
    assert_counted(counted_tokens(batch, tokens, PAD), expected)


def assert_counted(counted, expected):
    if expected is None:
        assert counted is None
    else:
        assert counted.dtype == torch.bool and counted.int().tolist() == expected
