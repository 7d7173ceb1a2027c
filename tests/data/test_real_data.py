"""Real files beside the repository: OLMoE's tokenizer, Alpaca and ShareGPT rows."""

from pathlib import Path

import pytest

from olmoe_ft.data.sources import load_source
from olmoe_ft.data.tokenizer import load_tokenizer
from olmoe_ft.recipe import RecipeError
from olmoe_ft.recipe.schema import Data, Source

REAL = Path(__file__).parents[3] / "shared" / "data"
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not REAL.exists(), reason="the real data is not beside the repository (../shared/data)"),
]


def loaded(name, stage):
    source = Source(path=str(REAL / name))
    return load_source(source, stage, Data(train=(source,)))[0]


def test_olmoes_own_tokenizer_gets_its_conventions_from_a_bare_tokenizer_json():
    tokenizer = load_tokenizer(str(REAL / "olmoe_tokenizer"), 50304)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (1, 50279, 50279)
    messages = [{"role": "user", "content": "Hello, world!"}, {"role": "assistant", "content": "Hi there."}]
    batch = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    learned = [token for token, kept in zip(batch["input_ids"], batch["assistant_masks"], strict=True) if kept]
    assert tokenizer.decode(learned) == "Hi there.<|endoftext|>"
    assert tokenizer.decode(batch["input_ids"]).startswith("<|endoftext|><|user|>\nHello, world!\n<|assistant|>\n")


def test_a_model_with_too_small_a_vocabulary_is_refused():
    with pytest.raises(RecipeError, match="50280 tokens and the model's vocab_size is 512"):
        load_tokenizer(str(REAL / "olmoe_tokenizer"), 512)


def test_every_alpaca_and_sharegpt_row_is_read():
    alpaca = loaded("alpaca_500.json", "sft")
    assert len(alpaca) == 500
    assert all([turn["role"] for turn in row["messages"]] == ["user", "assistant"] for row in alpaca)
    pairs = loaded("sharegpt_preferences_150.json", "dpo")
    assert len(pairs) == 150
    assert all(row["prompt"][-1]["role"] == "user" and row["chosen"] != row["rejected"] for row in pairs)
