"""lm-eval's tasks on our engine beside lm-eval's own model on stock transformers: the same numbers and texts."""

import json
import random

import numpy as np
import pytest
import torch
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from support import REPOSITORY, SUPPORT
from support.networks import pair

from olmoe_ft.data.tokenizer import load_tokenizer
from olmoe_ft.evaluation.engine import OlmoeEngine
from olmoe_ft.evaluation.evaluate import random_state_kept
from olmoe_ft.evaluation.harness import Harness
from olmoe_ft.recipe import UserError

HELD = REPOSITORY / "data/skills/heldout.jsonl"
COMMON = {"dataset_path": "json", "test_split": "test", "fewshot_split": "test"}
TASKS = {
    "choices": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{messages[0].content}}",
        "doc_to_choice": ["{{answer}}", "a b", "{{answer}} {{answer}}"],
        "doc_to_target": 0,
        "num_fewshot": 2,
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "texts": {
        "output_type": "generate_until",
        "doc_to_text": "{{messages[0].content}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["a"], "max_gen_toks": 12, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    },
    "likelihoods": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{messages[0].content}} {{answer}} {{messages[0].content}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    },
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """lm-eval's tasks by name, on 24 rows."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = HELD.read_text().splitlines()[:24]
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n")
    for name, values in TASKS.items():
        files = {"dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}}}
        (folder / f"{name}.yaml").write_text(json.dumps({"task": name, **COMMON, **files, **values}))
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    return lambda *names: manager.load(list(names or TASKS))


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    stock, network = pair(vocab_size=512, max_position_embeddings=96, eos_token_id=511, pad_token_id=1)
    with torch.no_grad():
        for model in (stock, network):
            model.lm_head.weight.mul_(5)
    return stock.eval(), network.eval()


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(str(REPOSITORY / "data/skills/tokenizer"), 512)


def put(networks, tokenizer, tasks, batch_size=8, chat=True, **options):
    engine = OlmoeEngine(networks[1], tokenizer, batch_size)
    outcome = Harness(engine, tokenizer, chat, **options).run(tasks)
    return outcome.scores, outcome.samples


@pytest.mark.parametrize("chat", [True, False])
def test_scores_and_texts_are_those_of_stock_lm_eval(networks, tokenizer, tasks, chat):
    """Every metric to 1e-5, the prompts and the greedy outputs letter for letter; positions are short, so that rolling
    windows and prompts are cut as there."""
    stock = simple_evaluate(
        HFLM(pretrained=networks[0], tokenizer=tokenizer, batch_size=8),
        tasks=[*tasks()["tasks"].values()],
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
        bootstrap_iters=1000,
    )
    scores, samples = put(networks, tokenizer, tasks(), chat=chat)
    assert {(score.task, score.metric) for score in scores} == {
        ("choices", "acc"), ("choices", "acc_norm"), ("texts", "exact_match"), ("likelihoods", "bits_per_byte"),
    }  # fmt: skip
    for score in scores:
        wanted = stock["results"][score.task]
        assert score.value == pytest.approx(wanted[f"{score.metric},none"], abs=1e-5)
        if score.task != "likelihoods":
            assert score.stderr == pytest.approx(wanted[f"{score.metric}_stderr,none"], abs=1e-5)
        assert score.n == 24 and score.shots == stock["n-shot"][score.task]
        assert (score.template is not None) == chat
        assert score.higher_is_better == stock["higher_is_better"][score.task][score.metric]
    assert {score.metric: score.higher_is_better for score in scores}["bits_per_byte"] is False
    ours = {(sample.task, sample.id): sample for sample in samples}
    assert len(ours) == 72
    for example in stock["samples"]["texts"]:
        sample = ours["texts", example["doc_id"]]
        assert (sample.prompt, sample.output) == (example["arguments"][0][0], example["resps"][0][0])
    for example in stock["samples"]["choices"]:
        logprobs = [answer[0][0] for answer in example["resps"]]
        best = example["arguments"][logprobs.index(max(logprobs))][1].strip()
        assert ours["choices", example["doc_id"]].output == best


def test_every_task_has_the_loads_of_its_own_tokens(networks, tokenizer, tasks):
    """Two experts a layer for each token: of `texts` those generated, of `likelihoods` those of the whole texts."""
    engine = OlmoeEngine(networks[1], tokenizer, 8)
    samples = Harness(engine, tokenizer, True).run(tasks()).samples
    found = {task: {sum(layer) for layer in counts} for task, counts in engine.loads().items()}
    for task in ("texts", "likelihoods"):
        assert found[task] == {2 * sum(sample.tokens for sample in samples if sample.task == task)}
    assert found.keys() == {"choices", "texts", "likelihoods"} and len(found["choices"]) == 1


def test_batch_size_changes_no_output_and_no_score(networks, tokenizer, tasks):
    found = [put(networks, tokenizer, tasks("choices", "texts"), batch_size) for batch_size in (1, 7, 64)]
    for scores, samples in found[1:]:
        assert scores == found[0][0]
        assert [sample.output for sample in samples] == [sample.output for sample in found[0][1]]


def test_the_template_is_applied_once_with_one_bos(tmp_path, tasks, tokenizer, networks):
    """OLMoE's own tokenizer: the prompt has BOS once, at its start, in the text and in the tokens that are asked."""
    own = load_tokenizer(str(SUPPORT / "olmoe_tokenizer"), 50304)
    asked = []

    class Listening:
        name, dtype, max_length, new_tokens, generating = "listening", "float32", 4096, 0, 0.0

        def generate(self, asks, batch_size=None):
            asked.extend(asks)
            from olmoe_ft.evaluation.requests import Said

            return [Said("", (), []) for _ in asks]

    Harness(Listening(), own, True).run(tasks("texts"))
    assert len(asked) == 24
    for ask in asked:
        assert ask.tokens[0] == own.bos_token_id and ask.tokens.count(own.bos_token_id) == 1
        text = own.decode(ask.tokens)
        assert text.count("<|user|>") == text.count("<|assistant|>") == 1
        assert text.endswith("<|assistant|>\n")


def test_the_limit_takes_the_first_questions(networks, tokenizer, tasks):
    whole, first = (put(networks, tokenizer, tasks("texts"), limit=limit)[1] for limit in (None, 5))
    assert first == whole[:5]


def test_a_prompt_that_does_not_fit_is_counted(networks, tokenizer, tasks):
    """96 positions, and 90 new tokens leave 6 for a prompt."""
    loaded = tasks("texts")
    loaded["tasks"]["texts"].set_config("generation_kwargs", {"max_gen_toks": 90}, update=True)
    engine = OlmoeEngine(networks[1], tokenizer, 8)
    harness = Harness(engine, tokenizer, True, limit=3)
    harness.run(loaded)
    assert harness.cut == {"texts": 3}


def test_outputs_longer_than_the_positions_get_half_of_them(networks, tokenizer, tasks):
    """96 positions, and the task wants 200 new tokens: lm-eval's own model fails, here an output has up to 48."""
    loaded = tasks("texts")
    loaded["tasks"]["texts"].set_config("generation_kwargs", {"max_gen_toks": 200, "until": []}, update=True)
    harness = Harness(OlmoeEngine(networks[1], tokenizer, 8), tokenizer, True, limit=3)
    samples = harness.run(loaded).samples
    assert harness.short == {"texts": 48}
    assert max(sample.tokens for sample in samples) == 48


def test_a_metric_counts_the_questions_that_have_it(networks, tokenizer, tasks):
    """lm-eval gives one number for all metrics of a task: here one metric is of 24 questions, the other of the 3 whose
    number can be divided by 8."""
    loaded = tasks("texts")
    numbers = iter(range(24))

    def marks(doc, results):
        number = next(numbers)
        return {"always": 1.0, **({"seldom": 0.5} if number % 8 == 0 else {})}

    loaded["tasks"]["texts"].set_config("process_results", marks)
    scores, _ = put(networks, tokenizer, loaded)
    assert {score.metric: (score.n, score.value) for score in scores} == {"always": (24, 1.0), "seldom": (3, 0.5)}


def test_a_mark_that_fails_is_one_sentence_with_its_question(networks, tokenizer, tasks):
    def marks(doc, results):
        if doc["answer"] == asked[5]["answer"]:
            raise ValueError("no number in it")
        return {"always": 1.0}

    loaded = tasks("texts")
    asked = loaded["tasks"]["texts"].eval_docs
    loaded["tasks"]["texts"].set_config("process_results", marks)
    message = "texts, question 5: the task fails with ValueError: no number in it; correct it, or leave it out"
    with pytest.raises(UserError, match=message):
        put(networks, tokenizer, loaded)


def test_an_error_of_the_network_is_no_fault_of_a_task(networks, tokenizer, tasks, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("the kernel is gone")

    monkeypatch.setattr(networks[1].model, "forward", fails)
    with pytest.raises(RuntimeError, match="the kernel is gone"):
        put(networks, tokenizer, tasks("texts"))


def test_a_continuation_longer_than_the_positions_is_refused(networks, tokenizer, tasks):
    loaded = tasks("choices")
    loaded["tasks"]["choices"].doc_to_choice = lambda doc, *_: ["a b " * 60, "a"]
    with pytest.raises(UserError, match="but the model has 96 positions"):
        put(networks, tokenizer, loaded)


def test_sampled_outputs_are_the_same_in_any_batch(networks, tokenizer, tasks):
    """Temperature 1: each question draws from its own seed; another seed, or a repeat, draws others."""

    def sampled(batch_size, seed=0):
        loaded = tasks("texts")
        options = {"until": [], "do_sample": True, "temperature": 1.0, "max_gen_toks": 8}
        loaded["tasks"]["texts"].set_config("generation_kwargs", options, update=True)
        return [sample.output for sample in put(networks, tokenizer, loaded, batch_size, seed=seed)[1]]

    assert sampled(3) == sampled(64)
    assert sampled(64) != sampled(64, seed=1)
    assert len({*sampled(64)}) == 24


def test_no_generator_is_moved(networks, tokenizer, tasks):
    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    with random_state_kept():
        put(networks, tokenizer, tasks())
        torch.rand(3), np.random.rand(3), random.random()
    assert states() == before
