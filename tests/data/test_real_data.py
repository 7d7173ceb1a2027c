"""Real files beside the repository: OLMoE's tokenizer, Alpaca and ShareGPT rows."""

import json
from pathlib import Path

import pytest
from support.independent_tokenization import ids_and_labels
from support.small_tokenizers import FOLDERS, VOCABULARIES

from olmoe_ft.data.audit import audit
from olmoe_ft.data.formats import training_example
from olmoe_ft.data.length import Length
from olmoe_ft.data.mixture import load_mixtures
from olmoe_ft.data.pairs import preference_pair
from olmoe_ft.data.sources import load_source
from olmoe_ft.data.tokenizer import load_tokenizer
from olmoe_ft.data.tokens import tokenize
from olmoe_ft.recipe import Recipe, RecipeError
from olmoe_ft.recipe.data_section import Data, Source
from olmoe_ft.stages import STAGES

REAL = Path(__file__).parents[3] / "shared" / "data"
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not REAL.exists(), reason="the real data is not beside the repository (../shared/data)"),
]


def loaded(name, stage):
    source = Source(path=str(REAL / name))
    return load_source(source, STAGES[stage], Data(train=(source,)))[0]


def test_olmoes_own_tokenizer_gets_its_conventions_from_a_bare_tokenizer_json():
    tokenizer = load_tokenizer(str(REAL / "olmoe_tokenizer"), 50304)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (1, 50279, 50279)
    messages = [{"role": "user", "content": "Hello, world!"}, {"role": "assistant", "content": "Hi there."}]
    batch = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    learned = [token for token, kept in zip(batch["input_ids"], batch["assistant_masks"], strict=True) if kept]
    assert tokenizer.decode(learned) == "Hi there.<|endoftext|>"
    assert tokenizer.decode(batch["input_ids"]).startswith("<|endoftext|><|user|>\nHello, world!\n<|assistant|>\n")


def test_a_model_with_too_small_a_vocabulary_is_refused():
    with pytest.raises(RecipeError, match="50280 tokens, but the model's vocab_size is 512"):
        load_tokenizer(str(REAL / "olmoe_tokenizer"), 512)


def test_the_tests_tokenizer_is_built_as_olmoes():
    """All but the vocabulary: normalizer, splitting, offsets, decoder, and every added token with its flags."""
    real = json.loads((REAL / "olmoe_tokenizer/tokenizer.json").read_text())
    small = json.loads((FOLDERS["olmoe"] / "tokenizer.json").read_text())
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder", "truncation", "padding"):
        assert small[part] == real[part], part
    flags = [[{**token, "id": None} for token in values["added_tokens"]] for values in (small, real)]
    assert flags[0] == flags[1]
    assert [token["id"] for token in small["added_tokens"][:2]] == [0, 1]
    assert small["added_tokens"][-1]["id"] == VOCABULARIES["olmoe"] - 1


@pytest.fixture
def with_the_real_one(monkeypatch):
    """The tests' code by `tokenizers` alone, with OLMoE's own file."""
    tokenizer = load_tokenizer(str(REAL / "olmoe_tokenizer"), 50304)
    monkeypatch.setitem(FOLDERS, "real", REAL / "olmoe_tokenizer")
    return tokenizer


@pytest.mark.parametrize("name", ["alpaca_500.json", "self_instruct"])
def test_ids_and_labels_of_real_rows(with_the_real_one, name):
    """Against the text written out by hand, tokenized by `tokenizers` alone; as they are and with odd edges."""
    rows = json.loads((REAL / "alpaca_500.json").read_text())
    if name == "self_instruct":
        lines = (REAL / "self_instruct_seed_tasks.jsonl").read_text().splitlines()
        rows = [{**json.loads(line), **json.loads(line)["instances"][0]} for line in lines]
    for edge in ("", " ", "\n\n", "\t\t"):
        examples = [training_example({**row, "output": edge + row["output"]}) for row in rows]
        for example, found in zip(examples, tokenize(examples, with_the_real_one), strict=True):
            turns = [(turn["role"], turn["content"]) for turn in example["messages"]]
            assert (found.input_ids, found.labels) == ids_and_labels("real", turns)


def test_pairs_of_hh_rlhfs_form_with_the_real_tokenizer(with_the_real_one):
    """The ShareGPT pairs as HH-RLHF would write them: a transcript as prompt, answers that begin with a space."""
    for row in json.loads((REAL / "sharegpt_preferences_150.json").read_text()):
        names = {"human": "Human", "gpt": "Assistant", "system": "Human"}
        said = [(names[turn["from"]], turn["value"].strip()) for turn in row["conversations"]]
        prompt = "".join(f"\n\n{who}: {text}" for who, text in said) + "\n\nAssistant:"
        if any(mark in text for _, text in said for mark in ("\n\nHuman:", "\n\nAssistant:")):
            continue
        pair = preference_pair({"prompt": prompt, "chosen": " " + row["chosen"]["value"], "rejected": " no"})
        [found] = STAGES["dpo"].tokenize([pair], Length(None), with_the_real_one)
        assert with_the_real_one.decode(found["chosen_ids"]).startswith(" ")
        assert with_the_real_one.decode(found["prompt_ids"]).endswith("<|assistant|>\n")
        assert with_the_real_one.decode(found["rejected_ids"]) == " no<|endoftext|>"


def test_gsm8k_questions_in_training_are_found_row_by_row(tmp_path):
    """The first 300 training rows with 30 test questions between them: those rows are named, each with its question."""
    lines = (REAL / "benchmarks/gsm8k_train_300.jsonl").read_text().splitlines()
    taken = (REAL / "benchmarks/gsm8k_test_200.jsonl").read_text().splitlines()[50:80]
    mixed = [line for number in range(30) for line in (*lines[number * 10 : number * 10 + 10], taken[number])]
    (tmp_path / "mixed.jsonl").write_text("\n".join(mixed) + "\n")
    bench = str(REAL / "benchmarks/gsm8k_test_200.jsonl")
    columns = {"question": "prompt", "answer": "completion"}
    values = {
        "name": "x",
        "stage": "sft",
        "model": {"path": "a/b"},
        "router": {"load_balancing_coef": 0, "z_loss_coef": 0, "train": "full"},
        "data": {
            "train": [{"path": str(tmp_path / "mixed.jsonl"), "columns": columns}],
            "decontaminate_against": [bench],
        },
    }
    tokenizer = load_tokenizer(str(REAL / "olmoe_tokenizer"), 50304)
    [source] = audit(load_mixtures(Recipe.model_validate(values), None, tokenizer)[0]).sources
    found = {row["row"].rpartition(":")[2]: row["prompts"] for row in source.overlapping}
    for number in range(30):
        assert f"{bench}:{51 + number}" in found[str(11 * number + 11)]
    assert source.overlaps[bench]["rows"] == len(found)


def test_every_alpaca_and_sharegpt_row_is_read():
    alpaca = loaded("alpaca_500.json", "sft")
    assert len(alpaca) == 500
    assert all([turn["role"] for turn in row["messages"]] == ["user", "assistant"] for row in alpaca)
    pairs = loaded("sharegpt_preferences_150.json", "dpo")
    assert len(pairs) == 150
    assert all(row["prompt"][-1]["role"] == "user" and row["chosen"] != row["rejected"] for row in pairs)
