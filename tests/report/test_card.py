"""The model card: true, valid for the Hub, without anything private, and left alone once a person has changed it."""

import json
import os
import re
import shutil
import socket
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard_data import model_index_to_eval_results
from support.card_runs import HUB_BASE, make_run, write_json, write_weights

from olmoe_ft.checkpoints.manifest import damage, write_manifest
from olmoe_ft.recipe import UserError
from olmoe_ft.report.card.card import may_be_replaced, model_card, write_card
from olmoe_ft.report.files.run_files import read_run


def card_of(path: Path, *arguments) -> ModelCard:
    """The card, read again from its text as the Hub does."""
    card = model_card(read_run(path), *arguments)
    again = ModelCard(str(card))
    assert str(again) == str(card)
    assert again.data.to_dict() == card.data.to_dict()
    return again


def test_metadata_is_what_the_hub_reads(tmp_path):
    """gsm8k's score: 0.5, by lm-eval's metric exact_match read by the filter strict-match, with 8 worked examples."""
    card = card_of(make_run(tmp_path / "runs" / "one"))
    data = card.data.to_dict()
    index = data.pop("model-index")
    assert data == {
        "license": "apache-2.0",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": HUB_BASE,
        "base_model_relation": "finetune",
        "datasets": ["allenai/some-mixture"],
        "tags": ["olmoe", "moe", "sft", "olmoe_ft"],
    }
    name, [result] = model_index_to_eval_results(index)
    assert (name, result.task_type, result.dataset_type, result.dataset_name) == (
        "one", "text-generation", "gsm8k", "gsm8k",
    )  # fmt: skip
    assert (result.metric_type, result.metric_value) == ("exact_match", 0.5)
    assert result.metric_name == "exact_match/strict-match, 8 examples"
    assert all(isinstance(value, str | list) for value in data.values())
    yaml.safe_load(str(card).split("---\n")[1])


def test_an_adapter_says_so(tmp_path):
    card = card_of(make_run(tmp_path / "one", adapter=True))
    assert card.data.library_name == "peft"
    assert (card.data.base_model, card.data.to_dict()["base_model_relation"]) == (HUB_BASE, "adapter")
    assert "lora" in card.data.tags
    assert "AutoPeftModelForCausalLM.from_pretrained(name" in card.text
    assert "vLLM takes no adapters on experts" in card.text and "vllm serve merged" in card.text


def test_the_same_merged_is_a_fine_tuned_model(tmp_path):
    run, merged = make_run(tmp_path / "one", adapter=True), tmp_path / "merged"
    merged.mkdir()
    write_weights(merged, adapter=False, base="")
    card = card_of(run, merged, "alice/one")
    assert (card.data.library_name, card.data.to_dict()["base_model_relation"]) == ("transformers", "finetune")
    assert 'name = "alice/one"\n' in card.text and 'LLM("alice/one")' in card.text
    assert "adapters by supervised fine-tuning (`one`). The adapters are folded in." in card.text


def test_local_bases_are_no_metadata(tmp_path):
    """Behind a run is the Hub's model that it began with, but an adapter's base is the run's own weights."""
    first = make_run(tmp_path / "runs" / "first")
    full = make_run(tmp_path / "runs" / "full", base="runs/first", stage="dpo")
    adapter = make_run(tmp_path / "runs" / "adapter", adapter=True, base=str(first / "final"), stage="dpo")
    assert card_of(full).data.base_model == HUB_BASE
    card = card_of(adapter)
    assert card.data.base_model is None and "base_model_relation" not in card.data.to_dict()
    assert (
        "The base of this adapter is a local folder" in card.text
        and "PeftModel.from_pretrained(base, name)" in card.text
    )
    for one, trained in ((full, "all weights"), (adapter, "adapters")):
        first = "all weights by supervised fine-tuning (`first`)"
        path = f"{first}; then {trained} by direct preference optimisation (`{one.name}`)."
        assert path in card_of(one).text


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"config": "configs/model/olmoe_tiny.json"}, "It began with random weights (`olmoe_tiny.json`)"),
        ({"path": "/srv/models/mine"}, "weights of a local folder, `mine`"),
        ({"path": "runs/gone"}, "weights of a local folder, `gone`"),
        ({"path": f"/x/hub/models--{HUB_BASE.replace('/', '--')}/snapshots/{'0' * 40}"}, f"/{HUB_BASE})"),
        (None, "weights of a local folder."),
    ],
)
def test_where_the_weights_come_from(tmp_path, model, said):
    card = card_of(make_run(tmp_path / "one", model=model))
    assert said in card.text
    assert (card.data.base_model == HUB_BASE) == (HUB_BASE in said) == (card.data.license == "apache-2.0")


def test_its_numbers_are_those_of_the_run(tmp_path):
    """Of 8 experts the entropy is at most ln 8 = 2.08. 50% ± 5 of 100 questions; 25% of the 60 that are clean."""
    text = card_of(make_run(tmp_path / "one")).text
    for line in (
        "| `gsm8k` | `exact_match/strict-match` | 100 | 50.0% ± 5.0 |",
        "| `gsm8k` | without questions in the training rows |  | 25.0% of 60 |",
        "by the evaluation of olmoe_ft and lm-eval 0.4.13.",
        "| optimizer steps | 20 |",
        "| tokens | 1,000 |",
        "| loss of the task | 1.9 at first, 0.9 at last |",
        "| time | 1 min 30 s |",
        "| `training.learning_rate` | `2.0e-05` |",
        "| [allenai/some-mixture](https://huggingface.co/datasets/allenai/some-mixture) "
        "| not known; look at the dataset's page | 900 | 900 | 7,000 | 3,000 |",
        "| `mine.jsonl` | not known; a local file | 50 | 10 | 200 | 100 |",
        "- 12 of 900 rows of",
        "/some-mixture) contain questions of `gsm8k`.",
        "nats), at most 2.08 | 2 | 1 |",
        "| `router/dead_experts` | experts without a token | 0 | 3 |",
        "python 3.11.7, torch 2.13.0, olmoe\\_ft at aaaaaaaaaaaa-dirty",
        "arXiv:2409.02060",
    ):
        assert line in text


def test_values_are_written_as_in_a_recipe(tmp_path):
    training = {"packing": True, "max_steps": None, "optim": "yes", "report_to": ["a", 1], "text": "ü " * 60}
    text = card_of(make_run(tmp_path / "one", training=training)).text
    for line in ("packing` | `true`", "max_steps` | `null`", "optim` | `'yes'`", "report_to` | `[a, 1]`", "ü ü ' |"):
        assert line.replace(" ' |", " '` |") in text


def test_data_that_comes_with_the_package_has_its_licence(tmp_path):
    run = make_run(tmp_path / "one", data={"train": [{"path": "data/skills/train.jsonl"}]})
    (run / "data_report.json").unlink()
    card = card_of(run)
    assert "| `train.jsonl` | Apache-2.0, comes with olmoe_ft |" in card.text
    assert card.data.datasets is None


@pytest.mark.parametrize("file", ["run.json", "metrics.jsonl", "summary.json", "data_report.json", "evaluation.json"])
@pytest.mark.parametrize("content", [None, "", "[1, 2", '{"launches": 3, "sources": [4], "evaluations": {}}'])
def test_a_card_is_made_of_what_there_is(tmp_path, file, content):
    run = make_run(tmp_path / "one")
    (run / file).unlink()
    if content is not None:
        (run / file).write_text(content)
    assert card_of(run).text.startswith("\n# one\n")


def test_vllm_is_not_recommended_where_it_computes_something_else(tmp_path):
    run = make_run(tmp_path / "one")
    assert "something else" not in card_of(run).text
    config = json.loads((run / "final/config.json").read_text())
    write_json(run / "final/config.json", config | {"norm_topk_prob": True, "clip_qkv": 8.0})
    assert "vLLM computes something else for this network: it does not normalise" in card_of(run).text


def test_scores_that_are_not_finite_are_no_metadata(tmp_path):
    run = make_run(tmp_path / "one")
    file = run / "evaluation.json"
    file.write_text(file.read_text().replace('"value": 0.5', '"value": "NaN"'))
    assert "model-index" not in card_of(run).data.to_dict()


# ---- written, and left alone ----


def test_a_card_is_no_damage_and_is_written_again(tmp_path):
    run = make_run(tmp_path / "one")
    for _ in range(2):
        assert write_card(read_run(run))
        assert damage(run / "final") is None
    assert may_be_replaced(run / "final/README.md")


def test_a_card_that_a_person_has_changed_is_kept(tmp_path):
    run = make_run(tmp_path / "one")
    write_card(read_run(run))
    file = run / "final/README.md"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))  # an editor on Windows
    assert write_card(read_run(run))
    for change in (lambda text: text.replace("apache-2.0", "mit"), lambda text: text + "More.", lambda text: "Mine."):
        write_card(read_run(run))
        changed = change(file.read_text())
        file.write_text(changed)
        assert not write_card(read_run(run))
        assert file.read_text() == changed
        file.unlink()


def test_the_empty_form_of_peft_is_replaced(tmp_path):
    """As PEFT 0.21 writes it: huggingface_hub's template, its metadata, and its version."""
    run = make_run(tmp_path / "one", adapter=True)
    form = ModelCard.from_template(ModelCardData())
    form.data["base_model"] = "/srv/base"
    file = run / "final/README.md"
    file.write_text(f"{form}\n### Framework versions\n\n- PEFT 0.21.2")
    assert may_be_replaced(file)
    file.write_text(file.read_text().replace("Model Card for Model ID", "My adapter"))
    assert not may_be_replaced(file)
    file.unlink()
    write_card(read_run(run))
    assert "/srv/base" not in file.read_text()


def test_a_run_without_weights_is_refused(tmp_path):
    run = make_run(tmp_path / "one")
    shutil.rmtree(run / "final")
    with pytest.raises(UserError, match="has not finished"):
        write_card(read_run(run))


# ---- nothing private, nothing that acts ----

PLANTED = {
    "path": "/srv/people/carol/rows.jsonl",
    "windows": "C:\\Users\\carol\\rows.jsonl",
    "key": "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH",
    "wandb": "0123456789abcdef0123456789abcdef01234567",
    "named": "hub_token=hunter2hunter2",
    "url": "https://carol:swordfish@example.org/x",
    "host": "planted-node-7",
    "inside": "db1.cluster.internal",
    "address": "10.20.30.40",
}
NOT_IN_IT = (
    "/srv", "carol", "Users", PLANTED["key"], PLANTED["wandb"], "hunter2", "swordfish", "planted-node", "db1",
    "10.20.30",
)  # fmt: skip


def planted(value, text):
    """A value of JSON with a text put into each text of it, keys included; not where the text decides what it is."""
    fixed = ("sft", "after", "frozen", HUB_BASE, "one", "gsm8k")
    match value:
        case dict():
            return {**{key: planted(item, text) for key, item in value.items()}, f"also {text}": text}
        case list():
            return [planted(item, text) for item in value]
        case str() if value not in fixed:
            return f"{value} {text}"
    return value


@pytest.mark.parametrize("text", PLANTED.values(), ids=PLANTED)
def test_nothing_private_is_in_a_card(tmp_path, monkeypatch, text):
    monkeypatch.setattr(socket, "gethostname", lambda: PLANTED["host"])
    run = make_run(tmp_path / "one")
    for name in ("run.json", "summary.json", "data_report.json"):
        write_json(run / name, planted(json.loads((run / name).read_text()), text))
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    (run / "recipe.yaml").write_text(yaml.safe_dump({**planted(recipe, text), "name": f"one {text}"}))
    evaluations = json.loads((run / "evaluation.json").read_text())
    evaluations["evaluations"][0]["settings"] |= {"lm_eval": text, "tasks": [text]}
    evaluations["evaluations"][0]["scores"][0] |= {"task": text, "metric": f"exact_match/{text}"}
    write_json(run / "evaluation.json", evaluations)
    records = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join(json.dumps({**json.loads(one), text: 1.0}) for one in records))
    card = str(card_of(run))
    assert "gsm8k" not in card.split("## Scores")[0]  # the planted one is the task
    for private in (*NOT_IN_IT, str(tmp_path), os.getcwd()):
        assert private not in card, private


HOSTILE = (
    "<script>alert(1)</script>", "](javascript:alert(1))", "| a | b |", "```\n# x\n```", "{{ 7 * 7 }}",
    "---\nlicense: mit", "\x1b[31mred\u202e", "<!-- olmoe_ft card: 0000000000000000 -->", "# heading\n\n- item",
    "\u2028",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_of_a_run_are_shown_and_nothing_else(tmp_path, text):
    run = make_run(tmp_path / "one")
    plain = card_of(run)
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    (run / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "name": f"one {text}"}))
    write_json(run / "data_report.json", {"sources": [{"path": f"{text}.jsonl", "rows": 1, "dropped": {text: 3}}]})
    card = card_of(run)
    body = outside_of_code(card.text)
    assert [line for line in body.splitlines() if line.startswith("## ")] == [
        line for line in outside_of_code(plain.text).splitlines() if line.startswith("## ")
    ]
    assert (
        "<script>" not in body
        and not re.search(r"(?<!\\)\]\(javascript", body)
        and "\x1b" not in str(card)
        and "\u202e" not in str(card)
    )
    without_digest = re.sub(r"<!-- olmoe_ft card: .* -->", "", body)
    assert "49" not in without_digest and card.data.license == "apache-2.0"
    assert card.text.count("\n<details>") == 1


def outside_of_code(text: str) -> str:
    """Markdown without its fenced blocks and code spans, as CommonMark finds them."""
    lines, fence = [], ""
    for line in text.splitlines():
        if not fence and line.startswith("```"):
            fence = line[: len(line) - len(line.lstrip("`"))]
        elif fence and line == fence:
            fence = ""
        elif not fence:
            lines.append("".join(line.split("`")[::2]))
    assert not fence
    return "\n".join(lines)


def test_a_merged_folder_has_a_manifest_of_its_own(tmp_path):
    """Writing a card there is no damage either."""
    run, merged = make_run(tmp_path / "one", adapter=True), tmp_path / "merged"
    merged.mkdir()
    write_weights(merged, adapter=False, base="")
    write_manifest(merged)
    assert write_card(read_run(run), merged)
    assert damage(merged) is None
