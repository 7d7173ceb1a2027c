"""The tasks that ship, put to a small network through lm-eval's own `HFLM`, beside `data.answers`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import REPOSITORY

from olmoe_ft.data.template import prompts
from olmoe_ft.data.tokenizer import load_tokenizer
from olmoe_ft.evaluation.answered import Answered
from olmoe_ft.evaluation.questions import load_questions
from olmoe_ft.evaluation.scorers import number
from olmoe_ft.evaluation.task_files import load_tasks, shipped_tasks
from olmoe_ft.evaluation.task_rows import question, worked_examples
from olmoe_ft.model import OlmoeConfig, OlmoeForCausalLM
from olmoe_ft.model.generate import complete
from olmoe_ft.recipe import UserError, load_recipe
from olmoe_ft.recipe.data_section import Answers

HELD_OUT = REPOSITORY / "data/skills/heldout.jsonl"
GSM8K = REPOSITORY.parent / "shared/data/benchmarks"
WORKED = [
    {"question": "Two cars and one more?", "answer": "There are 2 + 1 = <<2+1=3>>3 cars.\n#### 3"},
    {"question": "Half of 2,468?", "answer": "It is 2468 / 2 = 1,234.\n#### 1,234"},
    {"question": "Take 7 from 2?", "answer": "2 - 7 = -5\n#### -5"},
]


@pytest.fixture(scope="module")
def tiny():
    """A network of random weights with the tokenizer of the skills, and the same as lm-eval's model."""
    from lm_eval.models.huggingface import HFLM

    torch.manual_seed(0)
    tokenizer = load_tokenizer(str(REPOSITORY / "data/skills/tokenizer"), 512)
    config = OlmoeConfig(
        vocab_size=512,
        hidden_size=32,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_experts=4,
        num_experts_per_tok=2,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = OlmoeForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model, tokenizer, HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8, device="cpu")


def evaluated(lm, names: list[str], limit: int | None = None) -> dict:
    from lm_eval import evaluate

    tasks = load_tasks(names)
    return evaluate(lm, task_dict=tasks, limit=limit, apply_chat_template=True, log_samples=True, bootstrap_iters=0)


def test_skills_are_marked_as_data_answers_are(tiny, tmp_path):
    """The answers of the first and the third row are replaced by what the network says, in the polite style for one."""
    model, tokenizer, lm = tiny
    rows = [json.loads(line) for line in HELD_OUT.read_text().splitlines()[:6]]
    said = complete(model, tokenizer, prompts([row["messages"] for row in rows], tokenizer), 40)
    assert len(set(said)) > 1 and all(said)
    rows[0]["answer"] = said[0]
    rows[2] |= {"answer": said[2][2:-1], "frames": {"bare": ["", ""], "polite": [said[2][:2], said[2][-1:]]}}
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    questions = load_questions(Answers(path=str(tmp_path / "rows.jsonl"), max_new_tokens=40))
    marks = [one.mark(text) for one, text in zip(questions, said, strict=True)]
    answered = Answered.of([("all", mark) for mark in marks], ["bare", "polite"])
    assert (answered.exact_match, answered.styles["polite"]) == (2 / 6, 1 / 6)

    found = evaluated(lm, [f"skills={tmp_path / 'rows.jsonl'}"])
    assert [sample["filtered_resps"][0] for sample in found["samples"]["skills"]] == said
    assert [sample["exact_match"] for sample in found["samples"]["skills"]] == [float(mark.right) for mark in marks]
    assert found["results"]["skills"]["exact_match,none"] == answered.exact_match
    for style, share in answered.styles.items():
        assert found["results"]["skills"][f"style_{style},none"] == pytest.approx(share)


def test_skills_have_the_rows_and_settings_of_the_recipes():
    tasks = load_tasks(["skills", "new_skill"])["tasks"]
    for name, recipe in (("skills", "sft"), ("new_skill", "sft-lora")):
        answers = load_recipe(REPOSITORY / f"recipes/tiny/{recipe}.yaml").data.answers
        docs, questions = tasks[name].test_docs(), load_questions(answers)
        assert [tasks[name].doc_to_text(doc) for doc in docs] == [one.prompt[-1]["content"] for one in questions]
        assert [tasks[name].doc_to_target(doc) for doc in docs] == [one.answer for one in questions]
        assert tasks[name].config.generation_kwargs["max_gen_toks"] == answers.max_new_tokens


def test_gsm8k_rows_have_the_worked_examples_of_lm_eval(tiny, tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in WORKED))
    tasks = load_tasks([f"gsm8k_rows={tmp_path}/rows.jsonl", f"gsm8k_rows_zeroshot={tmp_path}/rows.jsonl"])["tasks"]
    task, doc = tasks["gsm8k_rows"], tasks["gsm8k_rows"].test_docs()[1]
    context = task.fewshot_context(doc, num_fewshot=task.config.num_fewshot)
    assert context.count("Q: ") == 9 and context.count("The answer is ") == 8
    assert context.startswith(f"Q: {worked_examples()[0]['question']}\nA: {worked_examples()[0]['target']}\n\nQ: ")
    assert context.endswith("\n\nQ: Half of 2,468?\nA:")
    assert [task.doc_to_target(one) for one in task.test_docs()] == ["3", "1,234", "-5"]
    assert task.process_results(doc, ["1200 + 34 = 1,234. The answer is 1,234."]) == {"exact_match": 1}
    zero = tasks["gsm8k_rows_zeroshot"]
    assert zero.fewshot_context(doc, num_fewshot=zero.config.num_fewshot).startswith("Q: Half of 2,468?\nA: Let's")
    found = evaluated(tiny[2], [f"gsm8k_rows_zeroshot={tmp_path}/rows.jsonl"], limit=1)
    assert found["results"]["gsm8k_rows_zeroshot"]["exact_match,none"] in (0, 1)


@pytest.mark.parametrize(
    ("name", "rows", "outputs", "scores"),
    [
        ("number_rows", [{"prompt": "1+1?", "answer": "2"}], ["It is 2."], {"exact_match": 1}),
        ("number_rows", [{"question": "1+1?", "answer": 2}], ["It is 3."], {"exact_match": 0}),
        ("regex_rows", [{"prompt": "a?", "answer": "a+"}], ["aa"], {"regex_match": 1, "timed_out": 0}),
        ("json_rows", [{"prompt": "a?"}], ["[1]"], {"valid_json": 1}),
        ("json_rows", [{"prompt": "a?", "answer": "[2]"}], ["[1]"], {"valid_json": 1, "exact_match": 0}),
        ("exact_rows", [{"prompt": "a?", "answer": "b"}], ["b"], {"exact_match": 1, "style_plain": 1}),
    ],
)
def test_rows_of_ones_own_are_marked_by_each_scorer(tmp_path, name, rows, outputs, scores):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    [task] = load_tasks([f"{name}={tmp_path}/rows.jsonl"])["tasks"].values()
    assert task.doc_to_text(task.test_docs()[0]) in ("1+1?", "a?")
    assert task.process_results(task.test_docs()[0], outputs) == scores


def test_every_shipped_task_is_named_like_its_file_and_loads_in_stock_lm_eval(tmp_path, monkeypatch):
    """Away from the checkout's folder, by lm-eval's own loader; those without rows of their own say what they need."""
    from lm_eval.tasks import TaskManager

    monkeypatch.chdir(tmp_path)
    manager = TaskManager(include_path=str(shipped_tasks()["skills"].parent), include_defaults=False)
    assert manager.all_subtasks == sorted(shipped_tasks())
    assert len(manager.load(["skills"])["tasks"]["skills"].test_docs()) == len(HELD_OUT.read_text().splitlines())
    with pytest.raises(UserError, match="found no file of rows"):
        manager.load(["gsm8k_rows"])


def test_a_prompt_of_several_turns_is_refused():
    turns = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    with pytest.raises(UserError, match=r"the prompt has 2 turns \(system, user\); allowed: one turn of the user"):
        question({"messages": turns, "answer": "c"})
    with pytest.raises(UserError, match="needs a prompt"):
        question({"answer": "c"})


@pytest.mark.real_data
@pytest.mark.skipif(not GSM8K.exists(), reason="the real data is not beside the repository (../shared/data)")
@pytest.mark.parametrize(("name", "count"), [("gsm8k_test_200.jsonl", 200), ("gsm8k_train_300.jsonl", 300)])
def test_gsm8ks_own_answers_are_right_and_those_of_the_next_question_are_not(name, count):
    task = load_tasks([f"gsm8k_rows={GSM8K / name}"])["tasks"]["gsm8k_rows"]
    docs = list(task.test_docs())
    assert len(docs) == count
    assert all(task.process_results(doc, [doc["answer"]]) == {"exact_match": 1} for doc in docs)
    assert all(task.process_results(doc, [f"The answer is {task.doc_to_target(doc)}."])["exact_match"] for doc in docs)
    pairs = list(zip(docs, docs[1:], strict=False))
    shifted = [task.process_results(doc, [other["answer"]])["exact_match"] for doc, other in pairs]
    same = [number.expected_number(one) == number.expected_number(two) for one, two in pairs]
    assert shifted == [float(one) for one in same] and sum(same) < count / 10


def test_answers_need_no_lm_eval():
    """`data.answers` and all that a training run imports, with lm-eval absent."""
    code = (
        "import sys; sys.modules['lm_eval'] = None\n"
        "import olmoe_ft, olmoe_ft.cli, olmoe_ft.run_stage, olmoe_ft.evaluation.answers\n"
        "import olmoe_ft.evaluation.task_files, olmoe_ft.evaluation.task_rows\n"
        "from olmoe_ft.evaluation.questions import load_questions\n"
        "from olmoe_ft.recipe.data_section import Answers\n"
        "questions = load_questions(Answers(path='data/skills/heldout.jsonl', limit=1))\n"
        "print(questions[0].mark('Sure, it is a k f m. Anytime!'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Mark(right=True, style='polite')" in done.stdout


def test_checking_imports_no_torch(tmp_path):
    """So that a mistake in a task file is found in a second, before anything is loaded."""
    (tmp_path / "rows.jsonl").write_text(json.dumps(WORKED[0]))
    code = (
        "import sys\nfrom olmoe_ft.evaluation.task_files import check_tasks\n"
        "check_tasks(['skills', 'gsm8k_rows=rows.jsonl'])\nprint('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": "", "HF_HUB_OFFLINE": "1", "HOME": str(Path.home())}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "False", done.stderr
