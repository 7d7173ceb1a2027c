"""The two sides of the speed table: TRL, transformers and PEFT at their best, and this project, with equal weights."""

import copy
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from batches import Stage, rows
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer
from transformers.utils import is_flash_attn_2_available
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from olmoe_ft.adapters.lora import ATTENTION, EXPERTS
from olmoe_ft.model import OlmoeConfig, OlmoeForCausalLM
from olmoe_ft.recipe.schema import Router
from olmoe_ft.training.trainers import OlmoeDPOTrainer, OlmoeSFTTrainer

TOKENIZER = Path(__file__).parents[1] / "data/skills/tokenizer"
BALANCE = 0.01  # SFT's coefficient in transformers' form; DPO trains without, as the published recipes do
USUAL = {"num_experts": 64, "num_experts_per_tok": 8, "eos_token_id": 2, "pad_token_id": 1, "use_cache": False}
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "vocab_size": 512, "hidden_size": 128, "intermediate_size": 64, "num_hidden_layers": 4,
        "num_attention_heads": 4, **USUAL, "num_experts": 16, "num_experts_per_tok": 4,
    },
    # the head's share of the arithmetic is the released model's, 8%
    "mid": {
        "vocab_size": 5120, "hidden_size": 512, "intermediate_size": 512, "num_hidden_layers": 4,
        "num_attention_heads": 8, **USUAL,
    },
    "1b-7b": {
        "vocab_size": 50304, "hidden_size": 2048, "intermediate_size": 1024, "num_hidden_layers": 16,
        "num_attention_heads": 16, **USUAL,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    stage: Stage
    lora: bool
    size: str
    length: int
    batch: int
    """Packed rows a step, or pairs."""
    rank: int = 16

    @property
    def name(self) -> str:
        return f"{self.stage.upper()} {'LoRA' if self.lora else 'full'}"


class StockDPO(DPOTrainer):
    def _prepare_dataset(self, dataset: Dataset, *args: Any) -> Dataset:
        return dataset  # token ids already


class Side:
    """A trainer and its batches; `step` is what is measured."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        trainer.current_gradient_accumulation_steps = 1
        trainer.model.train()
        self.batches: Iterator[Any] = iter(trainer.get_train_dataloader())

    def next_batch(self) -> Any:
        """Collated and on the device, with the number of supervised tokens, as in the training loop."""
        trainer = self.trainer
        batch, number = trainer.get_batch_samples(self.batches, 1, trainer.accelerator.device)
        return batch[0], number

    def step(self, batch: Any) -> torch.Tensor:
        """Forward and backward; the loss that is optimised."""
        inputs, number = batch
        return self.trainer.training_step(self.trainer.model, dict(inputs), number)

    def forget(self) -> None:
        self.trainer.model.zero_grad(set_to_none=True)


def sides(case: Case, steps: int, device: str) -> dict[str, Side]:
    """Stock and ours, from the same random weights, for at least `steps` steps on the same rows."""
    options = SIZES[case.size]
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    data = rows(case.stage, case.length, (steps + 1) * case.batch * case.length * 2, options["vocab_size"])
    attention = "flash_attention_2" if device == "cuda" and is_flash_attn_2_available() else "sdpa"
    stock_config = transformers.OlmoeConfig(
        **options, experts_implementation="grouped_mm", attn_implementation=attention, router_aux_loss_coef=BALANCE
    )
    our_config = OlmoeConfig(**options, attn_implementation="sdpa", max_position_embeddings=16384)
    stock_config.max_position_embeddings = 16384
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    networks: dict[str, list[torch.nn.Module]] = {"stock": [], "olmoe_ft": []}
    for _ in range(1 if case.stage == "sft" or case.lora else 2):  # the policy, and full DPO's reference
        with torch.device(device):
            stock = transformers.OlmoeForCausalLM(stock_config).to(dtype)
            ours = OlmoeForCausalLM(our_config).to(dtype)
        ours.load_state_dict(stock.state_dict())
        networks["stock"].append(stock)
        networks["olmoe_ft"].append(ours)
    folder = Path(tempfile.mkdtemp())
    made = {}
    for name, (policy, *reference) in networks.items():
        torch.manual_seed(1)  # the adapters' weights
        made[name] = Side(_trainer(name, case, policy, reference, copy.copy(data), tokenizer, folder, device))
    for (name, theirs), (_, own) in zip(
        made["stock"].trainer.model.named_parameters(), made["olmoe_ft"].trainer.model.named_parameters(), strict=True
    ):
        assert torch.equal(theirs, own), f"{name} differs"
    return made


def _trainer(name, case: Case, policy, reference, data: Dataset, tokenizer, folder: Path, device: str) -> Any:
    sft = case.stage == "sft"
    arguments: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": case.batch,
        "max_length": case.length,
        "train_sampling_strategy": "sequential",
        "gradient_checkpointing": False,
        "bf16": device == "cuda",
        "use_cpu": device == "cpu",
        "dataloader_pin_memory": device == "cuda",
        "report_to": "none",
        "router_aux_loss_coef": BALANCE if sft and name == "stock" else 0.0,
    }
    adapters = LoraConfig(
        task_type="CAUSAL_LM",
        r=case.rank,
        lora_alpha=2 * case.rank,
        target_modules=ATTENTION,
        target_parameters=EXPERTS,
        init_lora_weights=False,  # both factors random, so that every product is of something
    )
    common: dict[str, Any] = {
        "model": policy,
        "args": SFTConfig(packing=True, **arguments) if sft else DPOConfig(**arguments),
        "train_dataset": data,
        "processing_class": tokenizer,
        "peft_config": adapters if case.lora else None,
    }
    if not sft:
        common["ref_model"] = reference[0].requires_grad_(False) if reference else None
    if name == "stock":
        return SFTTrainer(**common) if sft else StockDPO(**common)
    # transformers' loss at balance is K, ours 1
    coefficient = BALANCE * policy.config.num_experts_per_tok if sft else 0.0
    router = Router(load_balancing_coef=coefficient, z_loss_coef=0.0, scope="pooled", train="full")
    common |= {"router": router, "probe_file": folder / "probe.safetensors"}
    return OlmoeSFTTrainer(**common) if sft else OlmoeDPOTrainer(start="", **common)
