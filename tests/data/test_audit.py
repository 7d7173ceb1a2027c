"""The audit's numbers, each of rows made for it."""

import io
import json
import random

import pytest
from mixtures import PAIRS, ROWS, TOKENIZER, mixture
from rich.console import Console

from olmoe_ft.data.audit import audit
from olmoe_ft.data.duplicates import NEAR, signatures
from olmoe_ft.data.heldout import HeldOut
from olmoe_ft.data.report import data_report, print_audit
from olmoe_ft.data.words import ngrams, words

LONG = "the quick brown fox jumps over the lazy dog near the river bank".split()  # 13 words


def test_every_number_of_a_source(write):
    """Four rows of 10 to 13 tokens, one learned as a whole, one copied, one cut: counted by hand.

    The template's tokens are one BOS, one EOS and what `<|user|>\\n`, `\\n<|assistant|>\\n` take in the tokenizer.
    """
    rows = [*ROWS[:3], ROWS[0]]
    found = audit(mixture([{"path": write("rows.jsonl", rows), "weight": 0.5, "repeat": 3}])).sources[0]
    lengths = [
        len(
            TOKENIZER(
                f"<|endoftext|><|user|>\n{row['prompt']}\n<|assistant|>\n{row['completion']}<|endoftext|>"
            ).input_ids
        )
        for row in rows
    ]
    learned = [len(TOKENIZER(f"{row['completion']}<|endoftext|>").input_ids) for row in rows]
    assert (found.rows, found.drawn, found.turns, found.tokens) == (4, 6, 8, sum(lengths))
    assert found.tokens_max == max(lengths) and found.supervised_tokens == sum(learned)
    assert found.tokens_p50 == sorted(lengths)[1] / 2 + sorted(lengths)[2] / 2
    assert (found.exact_copies, found.near_copies, found.dropped, found.without_eos) == (1, 0, {}, 0)


def test_truncation_is_counted_by_rows_and_by_what_it_cut(write):
    path = write("rows.jsonl", [ROWS[0], {"prompt": "p", "completion": "word " * 30}])
    whole = audit(mixture([{"path": path}])).sources[0]
    cut = audit(mixture([{"path": path}], max_length=whole.tokens_max - 4)).sources[0]
    assert (whole.truncated_rows, cut.truncated_rows) == (0, 1)
    assert (cut.truncated_prompt_tokens, cut.truncated_answer_tokens) == (0, 4)
    assert cut.supervised_tokens == whole.supervised_tokens - 4
    [finding] = audit(mixture([{"path": path}], max_length=whole.tokens_max - 4)).findings()
    assert "1 of 2 rows (50.0%) are cut, by 0 of prompts and 4 of answers in tokens" in finding


def test_a_text_with_a_bos_of_its_own_is_seen(write, monkeypatch):
    found = audit(mixture([{"path": write("rows.jsonl", [{"text": "<|endoftext|>a"}, {"text": "b"}])}])).sources[0]
    assert (found.double_bos, found.without_eos) == (1, 0)


def test_answers_that_do_not_end_with_eos_are_seen(write, monkeypatch):
    template = TOKENIZER.chat_template.replace("message['content'] + eos_token", "message['content']")
    monkeypatch.setattr(TOKENIZER, "chat_template", template)
    found = audit(mixture([{"path": write("rows.jsonl", ROWS)}]))
    assert found.sources[0].without_eos == 10
    assert "10 of 10 rows (100.0%) do not end their last answer with EOS" in found.findings()[0]


def test_a_template_that_marks_nothing_leaves_nothing_to_learn(write, monkeypatch):
    one = "{{ message['content'] }}{% generation %}{% endgeneration %}"
    monkeypatch.setattr(TOKENIZER, "chat_template", "{% for message in messages %}" + one + "{% endfor %}")
    with pytest.raises(ValueError, match="10 of 10 rows would teach nothing"):
        mixture([{"path": write("rows.jsonl", ROWS)}])


def test_a_template_that_refuses_a_row_names_it(write, monkeypatch):
    refusing = "{% if messages[0]['content'] == 'say 4' %}{{ raise_exception('no fours') }}{% endif %}"
    monkeypatch.setattr(TOKENIZER, "chat_template", refusing + TOKENIZER.chat_template)
    with pytest.raises(ValueError, match=r"rows.jsonl:5: the tokenizer's chat template refuses it \(no fours\)"):
        mixture([{"path": write("rows.jsonl", ROWS)}])


def test_copies_are_found_within_and_across_sources(write):
    """Of 60 words with one changed, 5 of 56 shingles differ on each side: similarity 51 / 61 = 0.84, a near copy."""
    random.seed(0)
    base = [f"w{random.randrange(10**6)}" for _ in range(60)]
    near = [*base[:30], "other", *base[31:]]
    far = [f"w{random.randrange(10**6)}" for _ in range(60)]
    first = write("a.jsonl", [{"text": " ".join(base)}, {"text": " ".join(far)}])
    second = write("b.jsonl", [{"text": " ".join(near)}, {"text": " ".join(far)}, {"text": " ".join(far) + "!"}])
    one, two = audit(mixture([{"path": first}, {"path": second}])).sources
    assert (one.exact_copies, one.near_copies) == (0, 0)
    assert (two.exact_copies, two.near_copies) == (1, 2)  # the "!" changes the row but no word


def test_signatures_estimate_the_similarity_of_shingles():
    """Jaccard 51/61 of the rows above, within three standard deviations of 128 draws, sqrt(.84 * .16 / 128) = 0.03."""
    base = [f"w{number}" for number in range(60)]
    left, right = signatures([base, [*base[:30], "other", *base[31:]]])
    assert abs((left == right).mean() - 51 / 61) < 0.1 and 51 / 61 > NEAR


def test_pairs_with_the_same_answers_are_seen(write):
    rows = [*PAIRS[:3], {"prompt": "q", "chosen": "same", "rejected": "same"}]
    found = audit(mixture([{"path": write("rows.jsonl", rows)}], "dpo"))
    assert found.sources[0].same_answers == 1
    assert "have the same chosen and rejected answer" in found.findings()[-1]


@pytest.mark.parametrize(
    ("prompt", "row", "stands"),
    [
        (" ".join(LONG), f"as he said: {' '.join(LONG).upper()}.", True),
        (" ".join(LONG), " ".join(LONG[:12]), False),  # 12 words in a row are not enough
        (" ".join(["well", *LONG, "then"]), " ".join(LONG), True),
        ("say 5", "Say 5!", True),
        ("say 5", "please say 5 now", False),  # a short prompt must be the whole turn
        ("你好吗", "你好吗？", True),
    ],
)
def test_what_stands_in_a_row(prompt, row, stands):
    for role in ("user", "assistant", "text"):
        assert HeldOut([["other"], [prompt]]).standing_in([(role, words(row))]) == ([1] if stands else [])


def test_a_prompt_of_several_turns_is_all_that_is_asked():
    """A follow-up such as "continue" is no prompt by itself, and what the system says is none at all."""
    held_out = HeldOut([["name a town", "continue"], [" ".join(LONG[:7]), " ".join(LONG[7:])]])

    def found(*turns):
        return held_out.standing_in([(role, words(text)) for role, text in turns])

    assert found(("user", "Name a town."), ("assistant", "Rome"), ("user", "Continue!"), ("assistant", "Ulm")) == [0]
    assert found(("user", "name a river"), ("assistant", "Po"), ("user", "continue")) == []
    assert found(("user", " ".join(LONG[:7])), ("assistant", "yes"), ("user", " ".join(LONG[7:]))) == [1]
    assert found(("system", " ".join(LONG)), ("user", "hello")) == []


def test_rows_without_words_or_with_other_roles_are_no_copies(write):
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    rows = [{"prompt": "?!", "completion": "+"}, {"prompt": "😀", "completion": "🎉"}]
    rows += [{"messages": turns}, {"messages": [turns[0] | {"role": "system"}, turns[1]]}]
    [source] = audit(mixture([{"path": write("rows.jsonl", rows)}])).sources
    assert (source.exact_copies, source.near_copies) == (0, 1)  # the same words, said by others


def test_malformed_rows_are_no_copies_of_each_other(write):
    path = write("rows.jsonl", [*ROWS, {"prompt": "q"}, {"prompt": "p"}])
    [source] = audit(mixture([{"path": path}], malformed="drop", max_dropped=1)).sources
    assert (
        source.dropped == {"malformed": 2}
        and source.exact_copies == audit(mixture([{"path": write("r.jsonl", ROWS)}])).sources[0].exact_copies
    )


def test_special_tokens_in_texts_are_seen(write):
    rows = [{"prompt": "q", "completion": "a<|endoftext|>"}, {"prompt": "q", "completion": "b"}]
    found = audit(mixture([{"path": write("rows.jsonl", rows)}]))
    assert found.sources[0].special_tokens == 1
    assert "1 of 2 rows (50.0%) have a special token, such as EOS, written in their text" in found.findings()[0]


def test_words_and_runs():
    assert words("Don't stop, 你好!") == ["don", "t", "stop", "你", "好"]
    assert ngrams(["a", "b", "c"], 2) == ["a b", "b c"] and ngrams(["a"], 2) == ["a"] and ngrams([], 2) == []


def test_the_report_shows_rows_as_the_model_sees_them(write):
    mixed = mixture([{"path": write("rows.jsonl", ROWS)}])
    found = audit(mixed)
    report = data_report(found, mixed, TOKENIZER)
    assert json.loads(json.dumps(report)) == report and report["sources"][0]["rows"] == 10
    assert len(report["examples"]) == 3
    for spans in report["examples"]:
        assert [kind for kind, _ in spans] == ["seen", "learned"] and spans[1][1].endswith("<|endoftext|>")
    stream = io.StringIO()
    print_audit(found, mixed, TOKENIZER, Console(file=stream, force_terminal=True, width=100))
    [answer] = {spans[1][1] for spans in report["examples"][:1]}
    assert "\x1b[32m" + answer.split("<")[0] in stream.getvalue()  # green
    assert "Training data" in stream.getvalue()


def test_the_report_shows_both_answers_of_a_pair(write):
    mixed = mixture([{"path": write("rows.jsonl", PAIRS)}], "dpo")
    [first, *_] = data_report(audit(mixed), mixed, TOKENIZER)["examples"]
    assert [kind for kind, _ in first] == ["seen", "chosen", "rejected"]
