"""Mistakes in how a task gets and marks outputs: right answers, metrics, settings of generation, worked examples."""

from pathlib import Path

import pytest
from support.task_folder import ROWS, TASK, changed, problems, write

from olmoe_ft.evaluation.task_files import check_tasks, load_tasks
from olmoe_ft.evaluation.task_scoring import COMPUTED, NOT_OF_TEXT
from olmoe_ft.recipe import UserError

CHOICE = """\
task: mine
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "Q: {{question}}"
doc_to_choice: ["2", "3"]
doc_to_target: TARGET
metric_list: [{metric: acc}]
"""


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("answer", "rows.jsonl:2: the right answer is '4'; allowed: 0 to 1, or one of ['2', '3']; correct one of the"),
        ("7", "rows.jsonl:1: the right answer is 7; allowed: 0 to 1, or one of ['2', '3']"),
        ("-1", "rows.jsonl:1: the right answer is -1; allowed: 0 to 1"),
        ('"{{answer}}"', "rows.jsonl:1: the right answer is 2; allowed: 0 to 1"),
        ("[0, 2]", "rows.jsonl:1: the right answer is [0, 2]; allowed: as in the first row a list of numbers, 0 to 1"),
        ("\"{{[0] if answer == '2' else 1}}\"", "rows.jsonl:2: the right answer is 1; allowed: as in the first row"),
    ],
)
def test_a_right_answer_that_is_no_choice_is_refused(folder, target, message):
    """lm-eval would count every output as wrong. It takes a text of digits, as a template writes it, for a number."""
    Path("mine.yaml").write_text(CHOICE.replace("TARGET", target))
    found = problems("mine.yaml")
    assert any(one.startswith(f"mine.yaml:8: doc_to_target: {message}") for one in found), found
    assert len(found) == (2 if target.startswith('"{{answer') else 1)


@pytest.mark.parametrize("target", ["1", "'{{[1]}}'", "[0, 1]"])
def test_a_right_answer_among_the_choices_is_accepted(folder, target):
    Path("mine.yaml").write_text(CHOICE.replace("TARGET", target))
    task = load_tasks(["mine.yaml"])["tasks"]["mine"]
    assert task.process_results(task.test_docs()[0], [(-2.0, False), (-1.0, False)])["acc"] == 1.0


def test_where_the_prompt_is_chosen_its_number_is_the_right_answer(folder):
    """As in WinoGrande: two prompts, one text behind them; the target is no choice."""
    write("rows.jsonl", [{"a": "The cup", "b": "The box", "rest": "is blue.", "right": 1}])
    text = CHOICE.replace('"Q: {{question}}"', "right").replace('["2", "3"]', "'{{[a, b]}}'").replace("TARGET", "rest")
    Path("mine.yaml").write_text(text)
    assert load_tasks(["mine.yaml"])["tasks"]["mine"].multiple_input == 2
    write("rows.jsonl", [{"a": "The cup", "b": "The box", "rest": "is blue.", "right": 2}])
    [found] = problems("mine.yaml")
    assert found.startswith("mine.yaml:6: doc_to_text: rows.jsonl:1: the right answer is 2; allowed: 0 to 1")


def test_choices_of_an_output_in_words_are_numbered(folder):
    """lm-eval looks the right one up by its number, and nothing else."""
    text = CHOICE.replace("multiple_choice", "generate_until").replace("acc", "exact_match")
    Path("mine.yaml").write_text(text.replace("TARGET", "answer"))
    assert "the right answer is '2'; allowed: 0 to 1; correct one of the two" in problems("mine.yaml")[0]
    Path("mine.yaml").write_text(text.replace("TARGET", "1"))
    task = load_tasks(["mine.yaml"])["tasks"]["mine"]
    assert task.process_results(task.test_docs()[0], ["3"])["exact_match"] == 1.0


@pytest.mark.parametrize(
    ("kind", "metric", "allowed"),
    [
        ("loglikelihood", "{metric: f1}", "'f1'; allowed for the output_type loglikelihood: acc, perplexity; with a"),
        ("loglikelihood", "{metric: acc_all}", "'acc_all'; allowed for the output_type loglikelihood: acc, perpl"),
        ("loglikelihood", "{metric: !function code.upper, aggregation: mean}", "a function; allowed for the output_ty"),
        ("loglikelihood", "{metric: x, hf_evaluate: true}", "'x'; allowed for the output_type loglikelihood: acc"),
        ("loglikelihood_rolling", "{metric: acc}", "'acc'; allowed for the output_type loglikelihood_rolling: bits_pe"),
        (
            "multiple_choice\ndoc_to_choice: ['2', '4']",
            "{metric: bleu}",
            "'bleu'; allowed for the output_type multiple",
        ),
        ("generate_until", "{metric: acc}", "'acc'; allowed for the output_type generate_until: bleu, chrf, chrf++, e"),
        ("generate_until", "{metric: perplexity}", "'perplexity'; allowed for the output_type generate_until: bleu"),
        ("generate_until", "{metric: bypass}", "'bypass'; allowed for the output_type generate_until: bleu"),
    ],
)
def test_a_metric_that_lm_eval_does_not_compute_for_an_output_is_refused(folder, kind, metric, allowed):
    Path("mine.yaml").write_text(TASK.replace("generate_until", kind).replace("{metric: exact_match}", metric))
    found = problems("mine.yaml")
    line = 10 if "doc_to_choice" in kind else 9
    assert any(one.startswith(f"mine.yaml:{line}: metric_list.0.metric: found {allowed}") for one in found), found


def test_a_metric_that_only_passes_outputs_is_accepted_with_an_aggregation_of_ones_own(folder):
    """As in lm-eval's `masakhapos`: `acc` of texts gives pairs of the answer and the output, which a function reads."""
    Path("code.py").write_text("def same(pairs):\n    return sum(a == b for a, b in pairs) / len(pairs)\n")
    changed("{metric: exact_match}", "{metric: acc, aggregation: !function code.same, higher_is_better: true}")
    task = load_tasks(["mine.yaml"])["tasks"]["mine"]
    marks = [task.process_results(doc, ["2"])["acc"] for doc in task.test_docs()]
    assert task.aggregation()["acc"](marks) == 0.5


def test_every_metric_that_is_accepted_is_computed(folder):
    """By lm-eval itself, of one row; `likelihood` gives a pair, of which there is no mean."""
    import lm_eval.api.metrics  # noqa: F401 - fills the registry
    from lm_eval.api.registry import metric_registry

    words = sorted(set(metric_registry) - NOT_OF_TEXT)
    for kind, metrics in {**COMPUTED, "generate_until": words}.items():
        for metric in metrics:
            text = CHOICE.replace("multiple_choice", kind).replace("metric: acc", f"metric: {metric}")
            text = text.replace("TARGET", "1" if kind == "multiple_choice" else "answer")
            if kind != "multiple_choice":
                text = text.replace('doc_to_choice: ["2", "3"]\n', "")
            Path("mine.yaml").write_text(text)
            check_tasks(["mine.yaml"])
            if metric != "likelihood":
                load_tasks(["mine.yaml"])  # marks an output


def test_an_output_that_cannot_be_marked_is_found_when_tasks_are_loaded(folder):
    """The mean of pairs; a metric of the user's that fails; one that cannot be fetched."""
    Path("mine.yaml").write_text(CHOICE.replace("TARGET", "1").replace("acc", "likelihood"))
    with pytest.raises(UserError, match=r"mine: an empty output cannot be marked \(.*\); correct `metric_list`, `fil"):
        load_tasks(["mine.yaml"])
    Path("code.py").write_text("def divided(references, predictions):\n    return 1 / len(predictions[0])\n")
    changed("{metric: exact_match}", "{metric: !function code.divided, aggregation: mean, higher_is_better: true}")
    with pytest.raises(UserError, match=r"mine: an empty output cannot be marked \(division by zero"):
        load_tasks(["mine.yaml"])
    changed("{metric: exact_match}", "{metric: no_such_metric, hf_evaluate: true, aggregation: mean}")
    with pytest.raises(UserError, match="mine: its metric no_such_metric of `evaluate` cannot be loaded; use another"):
        load_tasks(["mine.yaml"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            "top_k: 5",
            ".top_k: is unknown (did you mean `top_p`?); allowed: until, max_gen_toks, max_new_tokens, max_to",
        ),
        ("num_beams: 5", ".num_beams: is unknown; allowed: until,"),
        ("temperature: hot", ".temperature: found 'hot'; allowed: a number, 0 or more"),
        ("temperature: -1", ".temperature: found -1; allowed: a number"),
        ("temperature: .inf", ".temperature: found inf; allowed: a number"),
        ("temperature: true", ".temperature: found True; allowed: a number"),
        ("top_p: 0", ".top_p: found 0; allowed: a number above 0, up to 1"),
        ("top_p: 1.5", ".top_p: found 1.5; allowed: a number above 0, up to 1"),
        ("do_sample: 1", ".do_sample: found 1; allowed: true or false"),
        ("max_new_tokens: 0", ".max_new_tokens: found 0; allowed: a whole number of tokens, at least 1"),
        ("max_tokens: 1.5", ".max_tokens: found 1.5; allowed: a whole number"),
        ("max_gen_toks: true", ".max_gen_toks: found True; allowed: a whole number"),
        (
            "until: ['']",
            ".until: found ['']; allowed: a text at which an output ends, or a list of such texts, none of",
        ),
        ("until: ''", ".until: found ''; allowed: a text"),
        ("until: null", ".until: found nothing; allowed: a text"),
        ("max_tokens: 3, max_gen_toks: 4", ": found max_gen_toks, max_tokens, which mean the same; keep one of them"),
    ],
)
def test_a_wrong_setting_of_generation_is_refused(folder, settings, message):
    changed('{until: ["Q:"], max_gen_toks: 8}', f"{{{settings}}}")
    [found] = problems("mine.yaml")
    assert found.startswith(f"mine.yaml:8: generation_kwargs{message}")


def test_right_settings_of_generation_are_accepted(folder):
    changed("max_gen_toks: 8", "max_completion_tokens: 8, do_sample: true, temperature: 1, top_p: 0.5")
    check_tasks(["mine.yaml"])
    changed('["Q:"]', "[]")
    check_tasks(["mine.yaml"])


@pytest.mark.parametrize(
    ("keys", "messages"),
    [
        ("num_fewshot: -1", [":5: num_fewshot: found -1; allowed: 0 or more worked examples"]),
        ("repeats: 0", [":5: repeats: found 0; allowed: 1 or more outputs for each question"]),
        (
            "num_fewshot: 1\nfewshot_split: test",
            [":6: fewshot_split: found `test`, whose rows are the questions of the test itself; name anoth"],
        ),
        (
            "num_fewshot: 1\nfewshot_config: {split: test}",
            [":6: fewshot_config.split: found `test`, whose rows are the questions of the test itself"],
        ),
        (
            "num_fewshot: 2\nfewshot_config: {samples: [{question: a, answer: b}]}",
            [":5: num_fewshot: found 2, more than the worked examples in fewshot_config.samples (1); lower it, or ad"],
        ),
        (
            "num_fewshot: 1\nfewshot_config: {samples: [{qestion: a, answer: b}, {question: a, answer: null}]}",
            [
                ":6: fewshot_config.samples: doc_to_text: example 1: 'question' is undefined",
                ":6: fewshot_config.samples: doc_to_target: example 2: has no `answer`",
            ],
        ),
        (
            "num_fewshot: 1\nfewshot_config: {doc_to_text: '{{q}}', samples: [{question: a, answer: b}]}",
            [":6: fewshot_config.samples: doc_to_text: example 1: 'q' is undefined"],
        ),
        (
            "num_fewshot: 1\nfewshot_config: {samples: [a]}",
            [":6: fewshot_config.samples: found 'a'; allowed: mappings with the keys of a row"],
        ),
        (
            "num_fewshot: 1\nfewshot_config: {samples: !function code.broken}",
            [":6: fewshot_config.samples: the function fails (broken() missing 1 required"],
        ),
        (
            "num_fewshot: 3\nfewshot_split: more\ndataset_kwargs: {data_files: {test: rows.jsonl, more: more.jsonl}}",
            [
                ":5: num_fewshot: found 3, more than the worked examples in `more` (2); lower it, or add examples",
                ":6: fewshot_split: doc_to_text: more.jsonl:2: 'question' is undefined",
            ],
        ),
    ],
)
def test_wrong_worked_examples_are_refused(folder, keys, messages):
    write("more.jsonl", [{"question": "a", "answer": "b"}, {"answer": "b"}])
    Path("mine.yaml").write_text(TASK.replace("test_split: test", f"test_split: test\n{keys}"))
    if "dataset_kwargs" in keys:
        changed("dataset_kwargs: {data_files: {test: rows.jsonl}}\ntest_split: test", f"test_split: test\n{keys}")
        messages = [f":{int(one[1]) - 1}{one[2:]}" for one in messages]
    found = problems("mine.yaml")
    assert len(found) == len(messages), found
    assert all(one.startswith(f"mine.yaml{start}") for one, start in zip(found, messages, strict=True)), found


def test_right_worked_examples_are_accepted(folder):
    write("more.jsonl", ROWS)
    changed(
        "{test: rows.jsonl}}",
        "{test: rows.jsonl, more: more.jsonl}}\nnum_fewshot: 2\nfewshot_split: more",
    )
    task = load_tasks(["mine.yaml"])["tasks"]["mine"]
    task.set_fewshot_seed(1)
    context = task.fewshot_context({"question": "3+3?", "answer": "6"}, num_fewshot=2)
    assert sorted(context.split("\n\n")) == ["Q: 1+1? 2", "Q: 2+2? 4", "Q: 3+3?"]
