"""`olmoe-ft prepare`, launches that take its rows, and runs with a tokenizer built as OLMoE's own."""

import json
import math
import os
from pathlib import Path

import pytest
from support import SUPPORT
from support.launches import CONFIGS, launch, make_workspace, olmoe_ft
from support.small_tokenizers import FOLDERS, VOCABULARIES

CONVERSATIONS = [
    [("user", "Name a colour."), ("assistant", " Blue."), ("user", "And a bird?"), ("assistant", "\n\nA wren.")],
    [("system", "Be brief."), ("user", "Say hi. "), ("assistant", "\tHi!")],
]
PAIR = {
    "prompt": "\n\nHuman: Hello?\n\nAssistant: Hi.\n\nHuman: Name a colour.\n\nAssistant:",
    "chosen": " Blue, like the sea.",
    "rejected": "\n\nNo.",
}
TRAINING = {
    "max_steps": 2,
    "per_device_train_batch_size": 2,
    "logging_steps": 1,
    "max_length": 256,
    "learning_rate": 1e-3,
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """A pipeline of SFT and DPO on rows whose answers begin with white space."""
    folder = make_workspace(tmp_path_factory.mktemp("prepare"))
    turns = [[{"role": role, "content": text} for role, text in one] for one in CONVERSATIONS]
    (folder / "rows.jsonl").write_text("".join(json.dumps({"messages": one}) + "\n" for one in turns * 8))
    (folder / "pairs.jsonl").write_text((json.dumps(PAIR) + "\n") * 16)
    network = json.loads(Path("configs/model/olmoe_tiny.json").read_text())
    end = VOCABULARIES["olmoe"] - 1
    network |= {"vocab_size": end + 1, "bos_token_id": end, "eos_token_id": end, "num_hidden_layers": 2}
    (folder / "model.json").write_text(json.dumps(network))
    (folder / "tokenizer").symlink_to(FOLDERS["olmoe"])
    start = {"config": "model.json", "tokenizer": "tokenizer", "dtype": "float32"}
    router = {"load_balancing_coef": 0.01, "z_loss_coef": 0.001, "train": "full"}
    stages = [
        {
            "stage": "sft",
            "model": start,
            "data": {"train": [{"path": "rows.jsonl"}]},
            "training": {**TRAINING, "packing": True},
        },
        {
            "stage": "dpo",
            "model": {"dtype": "float32"},
            "data": {"train": [{"path": "pairs.jsonl"}]},
            "training": TRAINING,
        },
    ]
    recipe = {"name": "x", "stage": "pipeline", "stages": stages, "router": router, "tracking": {"wandb": "off"}}
    (folder / "x.yaml").write_text(json.dumps(recipe))
    return folder


def entries(folder: Path) -> dict[str, int]:
    """The files of a cache's entries, with the times at which they were made."""
    names = ("rows.arrow", "tokens.arrow", "packed.arrow", "audit.json")
    files = [file for name in names for file in folder.glob(f"*/{name}")]
    return {f"{file.parent.name}/{file.name}": file.stat().st_mtime_ns for file in files}


def test_rows_are_prepared_once_for_all_stages_and_launches(workspace):
    """Before any run: the DPO stage's rows too, with the tokenizer that its SFT run will have."""
    done = olmoe_ft(workspace, "prepare", "x.yaml", "--to", "kept")
    assert done.returncode == 0, done.stderr
    assert "16 rows are prepared in kept" in done.stdout and "read as messages (16)" in done.stdout
    assert "read as prompt and two answers (16)" in done.stdout
    made = entries(workspace / "kept")
    assert sorted(name.split("-")[0] for name in made) == ["audit"] * 2 + ["packed"] + ["rows"] * 2 + ["tokens"] * 2
    assert not (workspace / "runs").exists()

    output = launch(workspace, CONFIGS["zero2"], "x.yaml", "data.cache=kept", "name=two")
    assert entries(workspace / "kept") == made
    for work in ("Tokenizing", "Packing", "Truncating", "Map"):
        assert work not in output
    for stage in ("sft", "dpo"):
        assert json.loads((workspace / f"runs/two/{stage}/summary.json").read_text())["steps"] == 2


def test_what_is_learned_with_olmoes_tokenizer(workspace):
    """The report of a run shows the answers with their white space, and nothing else as learned."""
    launch(workspace, CONFIGS["one"], "x.yaml", "name=one", "stages.1.training.loss_type=[sigmoid]")
    report = json.loads((workspace / "runs/one/sft/data_report.json").read_text())
    answers = {text + "<|endoftext|>" for turns in CONVERSATIONS for role, text in turns if role == "assistant"}
    learned = {text for spans in report["examples"] for kind, text in spans if kind == "learned"}
    assert learned <= answers and learned
    assert report["sources"][0]["dropped"] == {} and report["sources"][0]["forms"] == {"messages": 16}
    pairs = json.loads((workspace / "runs/one/dpo/data_report.json").read_text())
    [seen, chosen, rejected] = pairs["examples"][0]
    assert chosen == ["chosen", PAIR["chosen"] + "<|endoftext|>"]
    assert rejected == ["rejected", PAIR["rejected"] + "<|endoftext|>"]
    assert seen[1].endswith("Hi.<|endoftext|>\n<|user|>\nName a colour.\n<|assistant|>\n")
    first = json.loads((workspace / "runs/one/dpo/metrics.jsonl").read_text().splitlines()[0])
    assert first["loss/task"] == pytest.approx(math.log(2), abs=1e-5)


def test_benchmark_questions_in_training_are_found_by_the_command(workspace):
    (workspace / "bench.jsonl").write_text(json.dumps({"question": "Say hi.", "answer": "Hi"}) + "\n")
    done = olmoe_ft(workspace, "prepare", "x.yaml", "data.decontaminate_against=[bench.jsonl]")
    assert done.returncode == 0, done.stderr
    printed = " ".join(done.stdout.split())  # lines are broken at the width of the console
    assert "8 of 16 rows (50.0%) contain questions of bench.jsonl (1 of 1 were found)" in printed


@pytest.mark.parametrize("folder", ["file/kept", "file"])
def test_a_folder_that_cannot_hold_rows_is_one_sentence(workspace, folder):
    (workspace / "file").write_text("")
    done = olmoe_ft(workspace, "prepare", "x.yaml", "--to", folder)
    assert done.returncode == 2 and "set data.cache to a folder on a disk with free space" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_preparing_longer_than_processes_wait_for_each_other_ends_no_launch(workspace):
    """200,000 rows take one process about half a minute; a collective may stay open for 15 seconds."""
    rows = (workspace / "rows.jsonl").read_text().splitlines()
    with (workspace / "many.jsonl").open("w") as file:
        for number in range(200_000):
            file.write(
                rows[number % len(rows)].replace("Say hi", f"Say {number}").replace("Name", f"Name {number}") + "\n"
            )
    overrides = ["name=many", "stages.0.data.train=[{path: many.jsonl}]", "stages.0.training.dataset_num_proc=1"]
    fresh = f"data.cache={os.fspath(workspace / 'fresh')}"
    short = (str(SUPPORT / "short_collectives.py"),)
    launch(workspace, CONFIGS["zero2"], "x.yaml", *overrides, "training.ddp_timeout=15", fresh, program=short)
    assert json.loads((workspace / "runs/many/sft/summary.json").read_text())["steps"] == 2
    made = {file.name: file.stat() for file in (workspace / "fresh").glob("*/*.arrow") if file.stat().st_size > 2**22}
    assert made["tokens.arrow"].st_mtime - made["rows.arrow"].st_mtime > 15  # a longer time than may be waited
