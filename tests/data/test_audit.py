"""The audit's numbers, each of rows made for it."""

import io
import json
import random

import pytest
from rich.console import Console
from support.rows import PAIRS, ROWS

from olmoe_ft.data.audit import audit
from olmoe_ft.data.audit_report import data_report, print_audit
from olmoe_ft.data.duplicates import NEAR, signatures
from olmoe_ft.data.findings import findings
from olmoe_ft.data.heldout import HeldOut, Prompt
from olmoe_ft.data.words import ngrams, words

LONG = "the quick brown fox jumps over the lazy dog near the river bank".split()  # 13 words


def test_every_number_of_a_source(write, mixture, tokenizer):
    """Four rows of 10 to 13 tokens, one learned as a whole, one copied, one cut: counted by hand.

    The template's tokens are one BOS, one EOS and what `<|user|>\\n`, `\\n<|assistant|>\\n` take in the tokenizer.
    """
    rows = [*ROWS[:3], ROWS[0]]
    found = audit(mixture([{"path": write("rows.jsonl", rows), "weight": 0.5, "repeat": 3}])).sources[0]
    lengths = [
        len(
            tokenizer(
                f"<|endoftext|><|user|>\n{row['prompt']}\n<|assistant|>\n{row['completion']}<|endoftext|>"
            ).input_ids
        )
        for row in rows
    ]
    learned = [len(tokenizer(f"{row['completion']}<|endoftext|>").input_ids) for row in rows]
    assert (found.rows, found.drawn, found.turns, found.tokens) == (4, 6, 8, sum(lengths))
    assert found.tokens_max == max(lengths) and found.supervised_tokens == sum(learned)
    assert found.tokens_p50 == sorted(lengths)[1] / 2 + sorted(lengths)[2] / 2
    assert (found.exact_copies, found.near_copies, found.dropped, found.without_eos) == (1, 0, {}, 0)


def test_truncation_is_counted_by_rows_and_by_what_it_cut(write, mixture):
    path = write("rows.jsonl", [ROWS[0], {"prompt": "p", "completion": "word " * 30}])
    whole = audit(mixture([{"path": path}])).sources[0]
    cut = audit(mixture([{"path": path}], max_length=whole.tokens_max - 4)).sources[0]
    assert (whole.truncated_rows, cut.truncated_rows) == (0, 1)
    assert (cut.truncated_prompt_tokens, cut.truncated_answer_tokens) == (0, 4)
    assert cut.supervised_tokens == whole.supervised_tokens - 4
    [finding] = findings(audit(mixture([{"path": path}], max_length=whole.tokens_max - 4)))
    assert "1 of 2 rows (50.0%) are cut, losing 0 of prompts and 4 of answers in tokens" in finding


def test_lengths_are_counted_in_bins_that_all_sources_share(write, mixture, tokenizer):
    """A text of n words "a" has n tokens, BOS and EOS: a row of 3 tokens, two of 5, and in the other source one of 61.

    The bins must hold 61, which is less than twice the 99th percentile of the second source. Bins of 1 would be 62, of
    2 31, and of 5 are 13, of at most 30. A row of 5 is in the second bin, which begins with 5.
    """
    one, other = ([{"text": " ".join(["a"] * words)} for words in lengths] for lengths in ((1, 3, 3), (59,)))
    sources = [{"path": write(name, rows)} for name, rows in (("one.jsonl", one), ("other.jsonl", other))]
    found = audit(mixture(sources)).sources
    per_word = {name: len(tokenizer(" ".join(["a"] * count)).input_ids) for name, count in (("a", 1), ("aaa", 3))}
    assert per_word == {"a": 1, "aaa": 3}  # the premise
    edges = list(range(0, 66, 5))
    assert [source.lengths["edges"] for source in found] == [edges, edges]
    assert found[0].lengths["counts"] == [1, 2] + [0] * 11 and found[1].lengths["counts"] == [0] * 12 + [1]


def test_a_single_long_row_leaves_the_others_their_bins(write, mixture):
    """200 rows of 3 tokens and one of 1,002: bins to twice the 99th percentile, which is 3; the long row is in the last
    one."""
    rows = [{"text": "a"}] * 200 + [{"text": " ".join(["a"] * 1000)}]
    [source] = audit(mixture([{"path": write("rows.jsonl", rows)}])).sources
    assert source.tokens_max == 1002
    assert source.lengths == {"edges": [0, 1, 2, 3, 4, 5, 6, 7], "counts": [0, 0, 0, 200, 0, 0, 1]}


def test_a_text_with_a_bos_of_its_own_is_seen(write, mixture):
    found = audit(mixture([{"path": write("rows.jsonl", [{"text": "<|endoftext|>a"}, {"text": "b"}])}])).sources[0]
    assert (found.double_bos, found.without_eos) == (1, 0)


def test_answers_that_do_not_end_with_eos_are_seen(write, monkeypatch, mixture, tokenizer):
    template = tokenizer.chat_template.replace("message['content'] + eos_token", "message['content']")
    monkeypatch.setattr(tokenizer, "chat_template", template)
    found = audit(mixture([{"path": write("rows.jsonl", ROWS)}]))
    assert found.sources[0].without_eos == 10
    assert "10 of 10 rows (100.0%) have an answer that does not end with EOS" in findings(found)[0]


def test_a_template_that_refuses_a_row_names_it(write, monkeypatch, mixture, tokenizer):
    refusing = "{% if messages[0]['content'] == 'say 4' %}{{ raise_exception('no fours') }}{% endif %}"
    monkeypatch.setattr(tokenizer, "chat_template", refusing + tokenizer.chat_template)
    with pytest.raises(ValueError, match=r"rows.jsonl:5: the tokenizer's chat template refuses it \(no fours\)"):
        mixture([{"path": write("rows.jsonl", ROWS)}])


def test_copies_are_found_within_and_across_sources(write, mixture):
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
    left, right = signatures([base, [*base[:30], "other", *base[31:]]], [None, None])
    assert abs((left == right).mean() - 51 / 61) < 0.1 and 51 / 61 > NEAR


def test_pairs_with_the_same_answers_are_seen(write, mixture):
    rows = [*PAIRS[:3], {"prompt": "q", "chosen": "same", "rejected": "same"}]
    found = audit(mixture([{"path": write("rows.jsonl", rows)}], "dpo"))
    assert found.sources[0].same_answers == 1
    assert "have the same chosen and rejected answer" in findings(found)[-1]


@pytest.mark.parametrize(
    ("prompt", "row", "stands"),
    [
        (" ".join(LONG), f"as he said: {' '.join(LONG).upper()}.", True),
        (" ".join(LONG), " ".join(LONG[:12]), False),  # 12 words in a row are not enough
        (" ".join(["well", *LONG, "then"]), " ".join(LONG), True),
        ("say 5", "Say 5!", True),
        ("say 5", "please say 5 now", False),  # a short prompt must be the whole turn
        ("你好吗", "你好吗？", True),
        ("Où est-ce ?", "Ou\u0300 est-ce", True),  # the same letters, composed and not
    ],
)
def test_what_stands_in_a_row(prompt, row, stands):
    for role in ("user", "assistant", "text"):
        assert HeldOut([Prompt(["other"]), Prompt([prompt])]).standing_in([(role, words(row))]) == (
            [1] if stands else []
        )


def test_a_prompt_of_several_turns_is_all_that_is_asked():
    """A follow-up such as "continue" is no prompt by itself, and what the system says is none at all."""
    held_out = HeldOut([Prompt(["name a town", "continue"]), Prompt([" ".join(LONG[:7]), " ".join(LONG[7:])])])

    def found(*turns):
        return held_out.standing_in([(role, words(text)) for role, text in turns])

    assert found(("user", "Name a town."), ("assistant", "Rome"), ("user", "Continue!"), ("assistant", "Ulm")) == [0]
    assert found(("user", "name a river"), ("assistant", "Po"), ("user", "continue")) == []
    assert found(("user", " ".join(LONG[:7])), ("assistant", "yes"), ("user", " ".join(LONG[7:]))) == [1]
    assert found(("system", " ".join(LONG)), ("user", "hello")) == []


def test_rows_without_words_or_with_other_roles_are_no_copies(write, mixture):
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    rows = [{"prompt": "?!", "completion": "+"}, {"prompt": "😀", "completion": "🎉"}]
    rows += [{"messages": turns}, {"messages": [turns[0] | {"role": "system"}, turns[1]]}]
    [source] = audit(mixture([{"path": write("rows.jsonl", rows)}])).sources
    assert (source.exact_copies, source.near_copies) == (0, 1)  # the same words, said by others


def test_malformed_rows_are_no_copies_of_each_other(write, mixture):
    path = write("rows.jsonl", [*ROWS, {"prompt": "q"}, {"prompt": "p"}])
    [source] = audit(mixture([{"path": path}], malformed="drop", max_dropped=1)).sources
    assert (
        source.dropped == {"malformed": 2}
        and source.exact_copies == audit(mixture([{"path": write("r.jsonl", ROWS)}])).sources[0].exact_copies
    )


def test_special_tokens_in_texts_are_seen(write, mixture):
    rows = [{"prompt": "q", "completion": "a<|endoftext|>"}, {"prompt": "q", "completion": "b"}]
    found = audit(mixture([{"path": write("rows.jsonl", rows)}]))
    assert found.sources[0].special_tokens == 1
    assert "1 of 2 rows (50.0%) have a special token, such as EOS, written in their text" in findings(found)[0]


def test_words_and_runs():
    assert words("Don't stop, 你好!") == ["don", "t", "stop", "你", "好"]
    assert ngrams(["a", "b", "c"], 2) == ["a b", "b c"] and ngrams(["a"], 2) == ["a"] and ngrams([], 2) == []


def test_the_report_shows_rows_as_the_model_sees_them(write, mixture, tokenizer):
    mixed = mixture([{"path": write("rows.jsonl", ROWS)}])
    found = audit(mixed)
    report = data_report(found, mixed, tokenizer)
    assert json.loads(json.dumps(report)) == report and report["sources"][0]["rows"] == 10
    assert len(report["examples"]) == 3
    for spans in report["examples"]:
        assert [kind for kind, _ in spans] == ["seen", "learned"] and spans[1][1].endswith("<|endoftext|>")
    stream = io.StringIO()
    print_audit(found, mixed, tokenizer, Console(file=stream, force_terminal=True, width=100))
    [answer] = {spans[1][1] for spans in report["examples"][:1]}
    assert "\x1b[32m" + answer.split("<")[0] in stream.getvalue()  # green
    assert "Training data" in stream.getvalue()


def test_the_report_shows_both_answers_of_a_pair(write, mixture, tokenizer):
    mixed = mixture([{"path": write("rows.jsonl", PAIRS)}], "dpo")
    [first, *_] = data_report(audit(mixed), mixed, tokenizer)["examples"]
    assert [kind for kind, _ in first] == ["seen", "chosen", "rejected"]


def test_dropped_rows_are_told_by_reason_with_what_is_wrong_and_where(write, mixture):
    """Three kinds of problems; numbers and quoted values do not make another kind."""
    rows = [*ROWS, {"prompt": "q"}, {"messages": "x"}, {"messages": "y"}, {"prompt": "word " * 90, "completion": "a"}]
    path = write("rows.jsonl", [*rows, {"messages": [{"role": "user", "content": "no answer"}]}, {"messages": "z"}])
    found = audit(mixture([{"path": path}], max_length=60, malformed="drop", max_dropped=1)).sources[0]
    told = [(one.reason, one.rows, [place.rpartition(":")[2] for place in one.places]) for one in found.problems]
    assert told[0] == ("malformed", 3, ["12", "13", "16"])
    assert sorted(told[1:]) == [
        ("answer beyond max_length", 1, ["14"]),
        ("malformed", 1, ["11"]),
        ("malformed", 1, ["15"]),
    ]
    assert "found 'x'; allowed: a list of turns" in found.problems[0].problem
    assert sum(one.rows for one in found.problems) == sum(found.dropped.values()) == 6


def test_a_dropped_row_is_counted_under_its_reason_alone(write, mixture):
    """The long row would be cut and holds a special token; it is dropped, and that is all."""
    rows = [{"prompt": "word " * 90 + "<|endoftext|>", "completion": "a"}, ROWS[0]]
    found = audit(mixture([{"path": write("rows.jsonl", rows)}], max_length=60, long_prompts="drop")).sources[0]
    assert found.dropped == {"too long": 1}
    assert (found.truncated_rows, found.special_tokens, found.without_eos, found.exact_copies) == (0, 0, 0, 0)


def test_the_numbers_of_pairs(write, mixture, tokenizer):
    """The prompt counts once; learned tokens are a share of all; a malformed row has no turns."""
    path = write("pairs.jsonl", [*PAIRS[:2], {"prompt": "a", "chosen": "", "rejected": "c"}])
    found = mixture([{"path": path}], "dpo", malformed="drop", max_dropped=0.5)
    rows = [row for row in found.sources[0].rows if not row["dropped"]]
    sizes = [[len(row[name]) for name in ("prompt_ids", "chosen_ids", "rejected_ids")] for row in rows]
    audited = audit(found).sources[0]
    assert audited.turns == 2 * 3 - 2  # a question and two answers each, of which a conversation has one
    assert audited.tokens == sum(map(sum, sizes))
    assert audited.supervised_tokens == sum(sum(size[1:]) for size in sizes) < audited.tokens
    assert audited.tokens_max == max(size[0] + max(size[1:]) for size in sizes)


def test_rows_beyond_the_networks_positions_are_seen(write, mixture):
    path = write("rows.jsonl", [ROWS[0], {"prompt": "p", "completion": "word " * 30}])
    longest = audit(mixture([{"path": path}])).sources[0].tokens_max
    for positions, count in ((longest, 0), (longest - 1, 1), (None, 0)):
        found = audit(mixture([{"path": path}]), positions)
        assert found.sources[0].beyond_positions == count
        assert bool([one for one in findings(found) if f"the {positions} positions" in one]) == bool(count)
    cut = audit(mixture([{"path": path}], max_length=longest - 1), longest - 1)
    assert cut.sources[0].beyond_positions == 0


def test_how_rows_were_read_is_told(write, mixture, tokenizer):
    rows = [{**ROWS[0], "id": 1, "is_good": False}, {**ROWS[1], "id": 2}, {"text": "a"}]
    found = mixture([{"path": write("rows.jsonl", rows)}])
    [source] = audit(found).sources
    assert source.forms == {"prompt_completion": 2, "text": 1}
    assert (source.unread, source.doubtful) == ({"id": 2, "is_good": 1}, {"is_good": 1})
    told = " ".join(findings(audit(found)))
    assert "rows of several formats: prompt_completion (2), text (1)" in told
    assert "keys that were not read but may matter: is_good (1)" in told
    stream = io.StringIO()
    print_audit(audit(found), found, tokenizer, Console(file=stream, width=300))
    assert "read as prompt_completion (2), text (1); keys that were not read: id (2), is_good (1)" in stream.getvalue()


def test_the_audit_of_pairs_and_rows_that_a_template_refuses_counts_no_turns(write, mixture, tokenizer, monkeypatch):
    refusing = "{% if messages[0]['content'] == 'say 4' %}{{ raise_exception('no fours') }}{% endif %}"
    monkeypatch.setattr(tokenizer, "chat_template", refusing + tokenizer.chat_template)
    found = audit(mixture([{"path": write("rows.jsonl", ROWS)}], malformed="drop", max_dropped=1)).sources[0]
    assert (found.turns, found.dropped) == (18, {"malformed": 1})
    [problem] = found.problems
    assert problem.places[0].endswith("rows.jsonl:5") and "refuses it (no fours)" in problem.problem


def test_evaluation_rows_are_audited_too(write, mixtures, tokenizer):
    """Of three evaluation rows one is malformed and one too long: told on the screen and in the report."""
    rows = [ROWS[0], {"prompt": "x"}, {"prompt": "word " * 90, "completion": "a"}]
    settings = {"malformed": "drop", "max_dropped": 0.5, "long_prompts": "drop", "max_length": 60}
    found, evaluation = mixtures(
        [{"path": write("rows.jsonl", ROWS)}], evaluation=[{"path": write("eval.jsonl", rows)}], **settings
    )
    audited, evaluated = audit(found), audit(evaluation)
    assert evaluated.sources[0].dropped == {"malformed": 1, "too long": 1}
    assert audited.groups == {"held-out prompts": 2}  # the malformed row asks nothing
    assert data_report(audited, found, tokenizer, evaluated)["evaluation"]["sources"][0]["rows"] == 3
    stream = io.StringIO()
    print_audit(audited, found, tokenizer, Console(file=stream, width=300), evaluated)
    assert "Evaluation data" in stream.getvalue() and "eval.jsonl:2" in stream.getvalue()


@pytest.mark.parametrize("learned", [True, False])
def test_what_stands_behind_the_last_learned_answer_is_no_answer(write, mixture, tokenizer, learned):
    """A last question without an answer, or an answer that is not to be learned, gives way before the learned one."""
    turns = [{"role": "user", "content": "say 5"}, {"role": "assistant", "content": "five"}]
    tail = {"role": "user", "content": "word " * 60}
    if not learned:
        tail = {"role": "assistant", "content": "word " * 60, "train": False}
    path = write("rows.jsonl", [{"messages": [*turns, tail]}])
    for policy in ({}, {"long_prompts": "keep_end"}, {"long_answers": "drop"}, {"long_answers": "keep_end"}):
        found = mixture([{"path": path}], max_length=40, turn_marks="obey", **policy)
        assert (
            tokenizer.decode(found.rows[0]["input_ids"])
            == "<|endoftext|><|user|>\nsay 5\n<|assistant|>\nfive<|endoftext|>"
        )
        [source] = audit(found).sources
        assert source.truncated_rows == 1 and source.truncated_answer_tokens == 0 and source.dropped == {}


def test_a_row_whose_twin_was_dropped_is_no_copy(write, mixture):
    rows = [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "train": mark}]}
        for mark in (False, True)
    ]
    found = audit(mixture([{"path": write("rows.jsonl", rows)}], turn_marks="obey", max_dropped=0.5)).sources[0]
    assert (found.dropped, found.exact_copies) == ({"nothing to learn": 1}, 0)


def test_a_key_that_gave_way_to_another_may_matter(write, mixture):
    rows = [{"query": "q", "prompt": "an important one", "completion": "a"}]
    found = audit(mixture([{"path": write("rows.jsonl", rows), "columns": {"query": "prompt"}}])).sources[0]
    assert found.unread == found.doubtful == {"prompt": 1}
