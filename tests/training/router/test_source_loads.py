"""The experts' loads by data source, before and after: recomputed from the rows by transformers' own network."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file
from support import REPOSITORY
from support.training_cases import Case

from olmoe_ft.checkpoints.weights import load_whole
from olmoe_ft.data.mixture import load_mixtures
from olmoe_ft.recipe import load_recipe
from olmoe_ft.training import trainers
from olmoe_ft.training.model_files import ModelFiles
from olmoe_ft.training.router.source_loads import rows_by_source

SKILLS = REPOSITORY / "data/skills"
TWO = "data.train=[{{path: {0}/{1}.jsonl, max_rows: 40}}, {{path: {0}/new_skill_{1}.jsonl, max_rows: 5}}]"
SFT, PAIRS = TWO.format(SKILLS, "train"), TWO.format(SKILLS, "preferences")
WAYS = [(Case(), SFT), (Case(layout="packed"), SFT), (Case("dpo"), PAIRS), (Case(form="lora"), SFT)]


def file_of(trainer) -> Path:
    return Path(trainer.args.output_dir).parent / "routing_probe.safetensors"


def probe_of(trainer) -> dict[str, torch.Tensor]:
    return load_file(file_of(trainer))


def mixture_of(recipe):
    return load_mixtures(recipe, 64, ModelFiles(recipe).tokenizer)[0]


def counts(folder: Path, sequences: list[list[int]]) -> np.ndarray:
    """(layers, 8): how often transformers' network chooses each expert, each sequence by itself, up to 128 tokens.

    Of a folder with an adapter it is our own network, with the adapter folded in.
    """
    adapter = (folder / "adapter_config.json").exists()
    model = (load_whole(str(folder)) if adapter else transformers.OlmoeForCausalLM.from_pretrained(folder)).eval()
    found = np.zeros((2, 8), dtype=int)
    for ids in sequences:
        with torch.no_grad():
            outputs = model(input_ids=torch.tensor([ids[:128]]), output_router_logits=True, use_cache=False)
        for layer, logits in enumerate(outputs.router_logits):
            found[layer] += np.bincount(logits.topk(2).indices.flatten().numpy(), minlength=8)
    return found


@pytest.mark.parametrize(("case", "data"), WAYS, ids=["padded", "packed", "pairs", "lora"])
def test_loads_are_what_the_models_choose_for_each_sources_rows(make_trainer, case, data):
    """Eight of 40 rows, every fifth, and all five rows of the second source; a pair is its two sequences."""
    trainer = make_trainer(case, data, "training.learning_rate=0.02")
    trainer.save_model("begins")  # an adapter that is not zero
    trainer.train()
    trainer.save_model("ends")
    mixture, found = mixture_of(load_recipe("recipe.yaml", [data])), probe_of(trainer)
    with safe_open(file_of(trainer), "pt") as file:
        names = json.loads(file.metadata()["sources"])
    assert names == [one.source.path for one in mixture.sources]
    for index, rows in enumerate(([0, 5, 10, 15, 20, 25, 30, 35], range(5))):
        prepared = mixture.sources[index]
        kept = [prepared.rows[int(prepared.kept[row])] for row in rows]
        sequences = [
            [token for column in columns for token in row[column]]
            for row in kept
            for columns in mixture.stage.sequences
        ]
        assert np.array_equal(found["sources_start"][index], counts(Path("begins"), sequences))
        assert np.array_equal(found["sources_end"][index], counts(Path("ends"), sequences))
    assert not torch.equal(found["sources_start"], found["sources_end"])


def test_only_answers_count_where_the_recipe_says_so(make_trainer):
    """`router.tokens: completion`: two experts for each label of the rows, in either layer."""
    trainer = make_trainer(Case(), SFT, "router.tokens=completion")
    trainer.train()
    rows = rows_by_source(mixture_of(load_recipe("recipe.yaml", [SFT])))
    labels = [sum(label != -100 for row in dataset for label in row["labels"]) for dataset in rows.values()]
    assert probe_of(trainer)["sources_start"].sum(-1).tolist() == [[2 * count] * 2 for count in labels]


def test_at_most_sixteen_sources_and_128_sequences(make_trainer):
    """Of 17 sources of one file with 1 to 17 rows the smallest is left out; of 16 sources of pairs four pairs each."""
    for case, name, most in ((Case(), "train", 8), (Case("dpo"), "preferences", 4)):
        sources = [f"{{path: {SKILLS}/{name}.jsonl, max_rows: {rows}}}" for rows in range(1, 18)]
        make_trainer(case)
        found = rows_by_source(mixture_of(load_recipe("recipe.yaml", [f"data.train=[{', '.join(sources)}]"])))
        path = f"{SKILLS}/{name}.jsonl"
        assert [*found] == [path, *(f"{path} ({number})" for number in range(2, 17))]
        assert [len(dataset) for dataset in found.values()] == [min(rows, most) for rows in range(2, 18)]


@pytest.mark.parametrize(("case", "data"), WAYS, ids=["padded", "packed", "pairs", "lora"])
def test_training_and_drift_do_not_change_by_a_bit(make_trainer, monkeypatch, case, data):
    """Beside a run without any source, of the same seed: every number of every record but the times."""
    records = []
    for rows in (rows_by_source, lambda mixture: {}):
        monkeypatch.setattr(trainers, "rows_by_source", rows)
        trainer = make_trainer(case, data)
        trainer.train()
        assert ("sources_end" in probe_of(trainer)) == (rows is rows_by_source)
        times = ("perf/", "train_", "total_flos")
        records.append([{k: v for k, v in one.items() if not k.startswith(times)} for one in trainer.state.log_history])
    assert records[0] == records[1] and "router/drift_agreement" in records[0][-1] | records[0][-2]


def test_a_resumed_run_has_the_loads_of_its_start(make_trainer):
    """And one that resumes from a checkpoint of an older version, which kept none, has none."""
    saving = ("training.max_steps=4", "training.save_strategy=steps", "training.save_steps=2")
    whole = make_trainer(Case(), SFT, *saving)
    whole.train()
    expected = probe_of(whole)
    checkpoint = f"{whole.args.output_dir}/checkpoint-2"
    resumed = make_trainer(Case(), SFT, *saving)
    resumed.train(resume_from_checkpoint=checkpoint)
    found = probe_of(resumed)
    assert found.keys() == expected.keys() >= {"sources_start", "sources_end"}
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    file = Path(checkpoint) / "carried_0.pt"
    kept = torch.load(file, weights_only=True)
    del kept["RoutingDrift"]["sources"]
    torch.save(kept, file)
    older = make_trainer(Case(), SFT, *saving)
    older.train(resume_from_checkpoint=checkpoint)
    assert probe_of(older).keys() == expected.keys() - {"sources_start", "sources_end"}


def test_the_probe_has_the_text_of_each_of_its_tokens(make_trainer):
    trainer = make_trainer(Case(), SFT)
    trainer.train()
    found = probe_of(trainer)
    with safe_open(file_of(trainer), "pt") as file:
        texts = json.loads(file.metadata()["texts"])
    ids = set(found["input_ids"][found["counted"]].tolist())
    assert {int(token) for token in texts} == ids
    assert texts[str(trainer.processing_class.eos_token_id)] == trainer.processing_class.eos_token
