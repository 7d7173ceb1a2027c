"""From rows to the batches that a step sees: padded, packed, and pairs in one row, with both tokenizers."""

import pytest
import torch
from support.independent_tokenization import END
from trl.data_utils import pack_dataset
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from olmoe_ft.recipe import Recipe
from olmoe_ft.stages.shared_prompts import SharedPromptCollator
from olmoe_ft.training.packing import trainer_rows

ROWS = [
    {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": " Blue."}]},
    {
        "messages": [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "\n\nfirst"},
            {"role": "user", "content": "two "},
            {"role": "assistant", "content": "\tsecond"},
        ]
    },
    {"text": " once upon a time"},
]
LEARNED = {" Blue." + END, "\n\nfirst" + END, "\tsecond" + END, " once upon a time" + END}
PAIRS = [
    {"prompt": ROWS[1]["messages"][:3], "chosen": " yes", "rejected": "\n\nno"},
    {"prompt": "q ", "chosen": "a", "rejected": " a b"},
]


def runs(ids, learned) -> list[list[int]]:
    """Ids in runs of what is learned."""
    found: list[list[int]] = [[]]
    for token, is_learned in zip(ids, learned, strict=True):
        if is_learned:
            found[-1].append(token)
        else:
            found.append([])
    return [run for run in found if run]


def texts(tokenizer, ids, learned) -> list[str]:
    return [tokenizer.decode(run) for run in runs(ids, learned)]


def test_padded_rows(write, mixture, tokenizer):
    rows = mixture([{"path": write("rows.jsonl", ROWS)}]).rows
    batch = DataCollatorForLanguageModeling(pad_token_id=1)([dict(row) for row in rows])
    found = [
        text
        for ids, labels in zip(batch["input_ids"].tolist(), batch["labels"], strict=True)
        for text in texts(tokenizer, ids, (labels != -100).tolist())
    ]
    assert set(found) == LEARNED and len(found) == 4
    assert torch.equal(batch["labels"][batch["labels"] != -100], batch["input_ids"][batch["labels"] != -100])


def test_packed_rows(write, mixture, tokenizer):
    rows = mixture([{"path": write("rows.jsonl", ROWS)}]).rows
    [packed] = pack_dataset(rows, 256, "bfd")
    batch = DataCollatorForLanguageModeling(pad_token_id=1, padding_free=True)([dict(packed)])
    learned = (batch["labels"][0] != -100).tolist()
    # TRL leaves out the first token of each document, which nothing predicts; here these are BOS, never learned
    found = texts(tokenizer, batch["input_ids"][0].tolist(), learned)
    assert set(found) == LEARNED and len(found) == 4


def test_pairs_share_their_prompt_in_one_row(write, mixture, tokenizer):
    rows = [dict(row) for row in mixture([{"path": write("pairs.jsonl", PAIRS)}], "dpo").rows]
    packed = SharedPromptCollator(pad_token_id=1)(rows)["packed"]
    bounds = packed["cu_seq_lens_q"].tolist()
    ids, mask = packed["input_ids"][0].tolist(), packed["completion_mask"][0].tolist()
    answers = [
        text
        for start, end in zip(bounds, bounds[1:], strict=False)
        for text in texts(tokenizer, ids[start:end], mask[start:end])
    ]
    assert sorted(answers) == sorted([" yes" + END, "\n\nno" + END, "a" + END, " a b" + END])
    for row in rows:
        prompt = tokenizer.decode(row["prompt_ids"])
        assert prompt.endswith("<|assistant|>\n") and prompt.startswith(END + "<|user|>\n")


@pytest.mark.parametrize("shuffle", [False, True])
def test_packs_are_trls(write, mixture, tokenizer, shuffle):
    """The packs that are kept equal those TRL makes of the same rows, and are kept with the settings."""
    found = mixture([{"path": write("rows.jsonl", ROWS * 5)}])
    values = {"packing": True, "max_length": 64, "shuffle_dataset": shuffle, "seed": 3}
    recipe = Recipe.model_validate(
        {
            "name": "x",
            "stage": "sft",
            "model": {"path": "a/b"},
            "router": {"load_balancing_coef": 0, "z_loss_coef": 0, "train": "full"},
            "data": {"train": [{"path": "x"}]},
            "training": values,
        }
    )
    rows = found.rows.shuffle(seed=3) if shuffle else found.rows
    expected = pack_dataset(rows, 64, "bfd")
    expected = expected.shuffle(seed=3) if shuffle else expected
    packed = trainer_rows(found, recipe)
    assert packed.to_list() == expected.to_list() and trainer_rows(found, recipe).to_list() == packed.to_list()
    other = recipe.model_copy(update={"training": {**values, "max_length": 128}})
    assert len(trainer_rows(found, other)) < len(packed)
    plain = recipe.model_copy(update={"training": {**values, "eval_packing": False}})
    assert trainer_rows(found, plain, evaluation=True).to_list() == rows.to_list()


@pytest.mark.parametrize("policy", ["keep_start", "keep_end"])
def test_a_cut_row_learns_what_is_left_of_its_answer(write, mixture, tokenizer, policy):
    """Whatever is cut, labels are the ids at their own places and nothing of a prompt is learned."""
    row = {"prompt": "word " * 30, "completion": " one two three"}
    found = mixture(
        [{"path": write("rows.jsonl", [row])}], max_length=30, long_prompts=policy, max_dropped=1, max_prompt_length=20
    )
    [cut] = found.rows
    learned = [label for label in cut["labels"] if label != -100]
    assert len(cut["input_ids"]) <= 30 and cut["input_ids"][0] == tokenizer.bos_token_id
    assert cut["labels"][-len(learned) :] == learned == cut["input_ids"][-len(learned) :]
    assert (" one two three" + END).startswith(tokenizer.decode(learned))
