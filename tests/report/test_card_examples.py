"""The code of a model card runs as it is printed, on what the card describes, with stock transformers and PEFT."""

import re
import shutil
from pathlib import Path

import peft
import pytest
import torch
import transformers
from support import REPOSITORY
from support.card_runs import make_run
from support.networks import ours

from olmoe_ft.adapters.lora import lora_config
from olmoe_ft.checkpoints.weights import save_whole
from olmoe_ft.commands.merge import merge_checkpoint
from olmoe_ft.data.tokenizer import load_tokenizer
from olmoe_ft.recipe.schema import Lora, Router
from olmoe_ft.report.card import model_card, write_card
from olmoe_ft.report.card_usage import CHAT, PEFT, TRANSFORMERS
from olmoe_ft.report.run_files import read_run

ROUTER = Router(load_balancing_coef=0.0, z_loss_coef=0.0, train="full")


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(str(REPOSITORY / "data/skills/tokenizer"), 512)


@pytest.fixture
def full(tmp_path, tokenizer) -> Path:
    run = make_run(tmp_path / "runs" / "full")
    shutil.rmtree(run / "final")
    save_whole(ours(vocab_size=512, max_position_embeddings=512), tokenizer, run / "final")
    return run


@pytest.fixture
def adapter(full, tokenizer) -> Path:
    run = make_run(full.parent / "adapter", adapter=True, base=str(full / "final"))
    shutil.rmtree(run / "final")
    base = transformers.OlmoeForCausalLM.from_pretrained(full / "final", dtype="float32")
    model = peft.get_peft_model(base, lora_config(Lora(r=4, alpha=8.0, attention=True, experts=True), ROUTER))
    model.save_pretrained(run / "final")
    tokenizer.save_pretrained(run / "final")
    return run


def run_code(code: str) -> torch.nn.Module:
    """Run an example; greedy, since the weights are noise and may not end."""
    values: dict = {}
    exec(code, values)  # the text of our own card
    assert values["output"].shape[1] > values["inputs"]["input_ids"].shape[1]
    return values["model"]


def example(card: str, title: str, folder: Path) -> str:
    code = re.search(rf"\*\*{title}\*\*.*?```python\n(.*?)```", card, re.DOTALL)
    assert code is not None
    return re.sub(r'"owner/name".*', f'"{folder}"', code[1]).replace("max_new_tokens=256", "max_new_tokens=3")


def test_full_weights(full):
    card = str(model_card(read_run(full)))
    assert isinstance(run_code(example(card, "transformers", full / "final")), transformers.OlmoeForCausalLM)


def test_an_adapter_on_a_local_base(full, adapter):
    card = str(model_card(read_run(adapter)))
    code = example(card, "PEFT", adapter / "final").replace("the folder of its base", str(full / "final"))
    assert isinstance(run_code(code), peft.PeftModelForCausalLM)


@pytest.mark.parametrize("form", [PEFT, TRANSFORMERS])
def test_an_adapter_that_names_its_base(adapter, form):
    """On the Hub it names a repository, here a folder."""
    code = form.format(name=f'"{adapter / "final"}"') + CHAT
    model = run_code(code.replace("max_new_tokens=256", "max_new_tokens=3"))
    assert any("lora_A" in name for name, _ in model.named_parameters())


def test_a_merged_run_has_its_card(adapter, tmp_path, monkeypatch):
    """The card of the adapter may have been changed; the folder it is merged into has its own."""
    (adapter / "final/README.md").write_text("Mine.")
    assert not write_card(adapter)
    merge_checkpoint(str(adapter), tmp_path / "merged")
    card = (tmp_path / "merged/README.md").read_text()
    assert "\nlibrary_name: transformers\n" in card and "The adapters are folded in." in card
    assert isinstance(run_code(example(card, "transformers", tmp_path / "merged")), transformers.OlmoeForCausalLM)
