"""What a stage trains on: shares and repeats, drops, fingerprints, held-out prompts."""

import pytest
from datasets import Dataset
from support.rows import PAIRS, ROWS

from olmoe_ft.data.mixture import tokens_hash
from olmoe_ft.recipe import RecipeError


def texts(tokenizer, found):
    return [tokenizer.decode(row["input_ids"]) for row in found.rows]


def learned(tokenizer, found):
    return [tokenizer.decode([token for token in row["labels"] if token != -100]) for row in found.rows]


def test_weight_is_the_share_drawn_and_repeat_how_often(write, mixture, tokenizer):
    """0.3 of ten rows is three; repeated twice, each of them appears twice."""
    path = write("rows.jsonl", ROWS)
    assert len(mixture([{"path": path, "weight": 0.3}]).rows) == 3
    doubled = texts(tokenizer, mixture([{"path": path, "weight": 0.3, "repeat": 2}]))
    assert len(doubled) == 6 and len(set(doubled)) == 3
    assert sorted(texts(tokenizer, mixture([{"path": path, "repeat": 2}]))) == sorted(
        texts(tokenizer, mixture([{"path": path}])) * 2
    )


def test_weight_draws_from_the_first_rows_where_max_rows_is_there(write, mixture, tokenizer):
    path = write("rows.jsonl", ROWS)
    found = texts(tokenizer, mixture([{"path": path, "max_rows": 4, "weight": 0.5}]))
    assert len(found) == 2 and all(any(f"say {number}\n" in text for number in range(4)) for text in found)


def test_a_mixture_depends_on_its_seed_alone(write, mixture, tokenizer):
    sources = [{"path": write("a.jsonl", ROWS), "weight": 0.5}, {"path": write("b.jsonl", ROWS[:4]), "max_rows": 3}]
    first, again, other = (mixture(sources, seed=seed) for seed in (1, 1, 2))
    assert (
        texts(tokenizer, first) == texts(tokenizer, again) != texts(tokenizer, other)
        and len(texts(tokenizer, first)) == 8
    )
    assert first.fingerprints() == again.fingerprints()


def test_fingerprints_are_of_content(write, mixture):
    """The same rows in another file have the same fingerprint; one changed letter gives another."""
    changed = [*ROWS[:9], {"prompt": "say 9", "completion": "it is 8"}]
    files = (write("a.jsonl", ROWS), write("b.jsonl", ROWS), write("c.jsonl", changed))
    one, same, other = (mixture([{"path": file}]).fingerprints() for file in files)
    assert one["sources"][0]["fingerprint"] == same["sources"][0]["fingerprint"]
    assert one["fingerprint"] == same["fingerprint"] != other["fingerprint"]
    assert one["sources"][0]["fingerprint"] != other["sources"][0]["fingerprint"]
    assert one["rows"] == one["sources"][0]["rows"] == one["sources"][0]["kept"] == 10


def test_only_answers_and_their_eos_are_learned(write, mixture, tokenizer):
    rows = [
        {
            "messages": [
                {"role": role, "content": text}
                for role, text in zip(["system", "user", "assistant"], "abc", strict=True)
            ]
        }
    ]
    found = mixture([{"path": write("rows.jsonl", rows)}])
    assert texts(tokenizer, found) == ["<|endoftext|><|system|>\na\n<|user|>\nb\n<|assistant|>\nc<|endoftext|>"]
    assert learned(tokenizer, found) == ["c<|endoftext|>"]


def test_a_plain_text_stands_between_two_ends_of_text_and_all_of_it_is_learned(write, mixture, tokenizer):
    found = mixture([{"path": write("rows.jsonl", [{"text": "a b"}])}])
    assert texts(tokenizer, found) == ["<|endoftext|>a b<|endoftext|>"] and learned(tokenizer, found) == [
        "a b<|endoftext|>"
    ]


def test_pairs_share_their_prompt(write, mixture, tokenizer):
    rows = mixture([{"path": write("rows.jsonl", PAIRS[:1])}], "dpo").rows
    prompt, chosen, rejected = (
        tokenizer.decode(rows[0][name]) for name in ("prompt_ids", "chosen_ids", "rejected_ids")
    )
    assert prompt == "<|endoftext|><|user|>\nsay 0\n<|assistant|>\n"
    assert (chosen, rejected) == ("0 please<|endoftext|>", "0<|endoftext|>")
    assert mixture([{"path": write("rows.jsonl", PAIRS[:1])}], "dpo").lengths().tolist() == [
        [len(rows[0]["prompt_ids"]) + len(rows[0][side]) for side in ("chosen_ids", "rejected_ids")]
    ]


def test_rows_that_would_teach_nothing_are_dropped_and_counted(write, mixture):
    """One of ten rows has a prompt beyond max_length: a tenth is more than the 0.01 that may be lost by default."""
    rows = [*ROWS[:9], {"prompt": "say " * 60, "completion": "a"}]
    path = write("rows.jsonl", rows)
    with pytest.raises(
        RecipeError, match="1 of 10 rows have nothing to learn.*rows.jsonl:10: its prompt of .* leaves no"
    ):
        mixture([{"path": path}], max_length=40)
    found = mixture([{"path": path}], max_length=40, max_dropped=0.1)
    assert len(found.rows) == 9 and found.sources[0].dropped == {"answer beyond max_length": 1}


def test_malformed_rows_are_dropped_if_the_recipe_says_so(write, mixture):
    path = write("rows.jsonl", [*ROWS[:9], {"prompt": "x"}])
    with pytest.raises(RecipeError, match=r"rows.jsonl:10: found prompt"):
        mixture([{"path": path}])
    found = mixture([{"path": path}], malformed="drop", max_dropped=0.2)
    assert len(found.rows) == 9 and found.sources[0].dropped == {"malformed": 1}
    with pytest.raises(RecipeError, match="the first is .*rows.jsonl:10: found prompt"):
        mixture([{"path": path}], malformed="drop")


def test_a_source_that_gives_no_row_is_an_error(write, mixture):
    with pytest.raises(RecipeError, match="weight 0.01 draws none of 10"):
        mixture([{"path": write("rows.jsonl", ROWS), "weight": 0.01}])
    with pytest.raises(RecipeError, match="all are dropped: 10 too long"):
        mixture([{"path": write("rows.jsonl", ROWS)}], max_length=5, long_prompts="drop")


def test_held_out_prompts_are_found_and_can_be_left_out(write, mixture, mixtures):
    """ "say 3" is an evaluation prompt and "say 5" a question; punctuation and case do not count."""
    path = write("rows.jsonl", ROWS)
    held_out = {"evaluation": [{"path": write("eval.jsonl", [ROWS[3]])}], "questions": [["Say 5!"]]}
    found, evaluation = mixtures([{"path": path}], **held_out)
    flagged = [index for index, prompts in enumerate(found.sources[0].rows["held_out"]) if prompts]
    assert flagged == [3, 5] and len(found.rows) == 10 and len(evaluation.rows) == 1
    cleaned = mixture([{"path": path}], **held_out, decontaminate=True)
    assert len(cleaned.rows) == 8 and cleaned.sources[0].dropped == {"held-out prompt": 2}


def test_rows_are_the_same_however_many_processes_tokenize(write, mixture, tokenizer, tmp_path):
    sources = [{"path": write("rows.jsonl", ROWS)}]
    one = mixture(sources, cache=str(tmp_path / "one"))
    two = mixture(sources, cache=str(tmp_path / "two"), training={"dataset_num_proc": 2})
    assert (len(one.sources[0].rows.cache_files), len(two.sources[0].rows.cache_files)) == (1, 2)
    assert texts(tokenizer, one) == texts(tokenizer, two) and one.fingerprints() == two.fingerprints()


def test_many_rows_are_tokenized_by_several_processes(write, monkeypatch, mixture, tokenizer, tmp_path):
    """Ten rows, and one process for every five of them; each writes a file of the cache."""
    monkeypatch.setattr("olmoe_ft.data.prepare.ROWS_A_PROCESS", 5)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    path = write("many.jsonl", ROWS)
    several = mixture([{"path": path}], cache=str(tmp_path / "several"))
    assert len(several.sources[0].rows.cache_files) == 2
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    alone = mixture([{"path": path}], cache=str(tmp_path / "alone"))
    assert len(alone.sources[0].rows.cache_files) == 1 and texts(tokenizer, alone) == texts(tokenizer, several)


def test_the_hash_of_rows_sees_every_column():
    """Lists by their lengths and values, single values by themselves."""
    rows = {"ids": [[1, 2], [3]], "label": [True, False]}
    whole = tokens_hash(Dataset.from_dict(rows), rows)
    for change in ({"ids": [[1], [2, 3]]}, {"ids": [[1, 2], [4]]}, {"label": [True, True]}):
        assert tokens_hash(Dataset.from_dict(rows | change), rows) != whole
    assert tokens_hash(Dataset.from_dict(rows | {"more": [1, 2]}), rows) == whole
