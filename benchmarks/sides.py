"""The sides of the speed table: TRL, transformers and PEFT at their best, and this project, with equal weights."""

import tempfile
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from batches import Stage, rows
from datasets import Dataset
from equal_attention import use_equal_attention
from measure import peak_bytes
from peft import LoraConfig
from transformers import AutoTokenizer
from transformers.utils import is_flash_attn_2_available
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

from olmoe_ft.adapters.lora import ATTENTION, EXPERTS
from olmoe_ft.model import OlmoeConfig
from olmoe_ft.model.experts.gradient_memory import GRADIENTS
from olmoe_ft.model.size import adapter_parameters_per_token, training_flops_per_token
from olmoe_ft.recipe.schema import Router
from olmoe_ft.stages import STAGES
from olmoe_ft.training.packing import pack
from olmoe_ft.training.scoring import ScoringOlmoe
from olmoe_ft.training.trainers import trainer_class

TOKENIZER = Path(__file__).parents[1] / "data/skills/tokenizer"
BALANCE = 0.01  # SFT's coefficient in transformers' form; DPO and KTO train without, as the published recipes do
BETA = 0.1  # of DPO and KTO
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
STOCK, EQUAL, OURS = "stock", "stock, equal attention", "olmoe_ft"


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    stage: Stage
    lora: bool
    size: str
    length: int
    batch: int
    """Packed rows a step, or pairs, or judged rows."""
    rank: int = 16
    checkpointing: bool = False
    """Whether both sides run their layers again in the backward pass, as one of them would not fit otherwise."""
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    """Over those of the size."""

    @property
    def name(self) -> str:
        return f"{self.stage.upper()} {'LoRA' if self.lora else 'full'}"

    @property
    def sizes(self) -> dict[str, Any]:
        return {**SIZES[self.size], "max_position_embeddings": max(4096, self.length), **self.options}


class StockDPO(DPOTrainer):
    def _prepare_dataset(self, dataset: Dataset, *args: Any) -> Dataset:
        return dataset  # token ids already


class StockKTO(KTOTrainer):
    def _prepare_dataset(self, dataset: Dataset, *args: Any) -> Dataset:
        return dataset  # token ids already, each row beside the answer of another


FORWARD_ALONE = {"sft": (0, 0), "dpo": (0, 1), "kto": (1, 2)}  # passes of policy and reference
PREFERENCES: dict[str, tuple[Any, Any]] = {"dpo": (DPOConfig, StockDPO), "kto": (KTOConfig, StockKTO)}


class Side:
    """A trainer and its batches."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        trainer.current_gradient_accumulation_steps = 1  # this and the next as the training loop does
        if trainer.args.gradient_checkpointing:
            trainer.model.gradient_checkpointing_enable(trainer.args.gradient_checkpointing_kwargs)
        trainer.model = trainer.accelerator.prepare_model(trainer.model)  # autocast around it, as `train()` does
        trainer.model.train()
        self.batches: Iterator[Any] = iter(trainer.get_train_dataloader())
        self.tokens = 0
        """That the network saw in the last step."""

    def next_step(self) -> torch.Tensor:
        """Collate a batch, forward and backward; the loss that is optimised."""
        [batch], number = self.trainer.get_batch_samples(self.batches, 1, self.trainer.accelerator.device)
        self.tokens = batch.get("packed", batch)["input_ids"].numel()
        return self.trainer.training_step(self.trainer.model, batch, number)

    def forget(self) -> None:
        """Drop the gradients, as the optimizer does between steps."""
        self.trainer.model.zero_grad(set_to_none=True)

    def peak(self, device: str) -> int:
        """Bytes of one more step above the weights, the gradients among them."""
        GRADIENTS.release()  # what is kept of those of earlier steps
        peak = peak_bytes(self.next_step, device)
        self.forget()
        return peak


def names_of(case: Case, device: str) -> tuple[str, ...]:
    """The sides of a case. Where stock has no FlashAttention, its packed rows are measured with our attention too."""
    masked = device == "cuda" and case.stage == "sft" and not is_flash_attn_2_available()
    return (STOCK, EQUAL, OURS) if masked else (STOCK, OURS)


def both_sides(case: Case, steps: int, device: str) -> dict[str, Side]:
    """Stock, maybe twice, and ours, from the same random weights, with rows for `steps` steps."""
    names = names_of(case, device)
    # the policy, the reference
    made_of = [networks(names, case, device) for _ in range(2 if _own_reference(case) else 1)]
    made = {name: _side(name, case, [each[name] for each in made_of], steps, device) for name in names}
    if EQUAL in made:
        use_equal_attention(made[EQUAL].trainer.model)
    for (name, weight), *others in zip(*(side.trainer.model.named_parameters() for side in made.values()), strict=True):
        assert all(torch.equal(weight, other) for _, other in others), f"{name} differs between the sides"
    return made


def our_side(case: Case, steps: int, device: str) -> Side:
    return _side(OURS, case, [networks((OURS,), case, device)[OURS]], steps, device)


def operations(case: Case, tokens: int) -> float:
    """FLOPs that a step cannot do without: every token once through the weights it uses; attention scores left out."""
    config = OlmoeConfig(**case.sizes)
    factors = adapter_parameters_per_token(config, case.rank, attention=True, experts=True) if case.lora else None
    policy, reference = FORWARD_ALONE[case.stage]
    return float(tokens * training_flops_per_token(config, factors, policy, reference))


def _own_reference(case: Case) -> bool:
    return STAGES[case.stage].has_reference and not case.lora


def networks(names: tuple[str, ...], case: Case, device: str) -> dict[str, torch.nn.Module]:
    """A network of each side, over one copy of the weights: no step changes them, and a GPU has no room for two."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    attention = "flash_attention_2" if device == "cuda" and is_flash_attn_2_available() else "sdpa"
    config = transformers.OlmoeConfig(
        **case.sizes,
        experts_implementation="grouped_mm",
        attn_implementation=attention,
        router_aux_loss_coef=BALANCE,
    )
    made: dict[str, torch.nn.Module] = {}
    for name in names:
        with torch.device(device):
            if name == OURS:
                network = ScoringOlmoe(OlmoeConfig(**case.sizes, attn_implementation="sdpa")).to(dtype)
            else:
                network = transformers.OlmoeForCausalLM(deepcopy(config)).to(dtype)
        if made:
            network.load_state_dict(next(iter(made.values())).state_dict(), assign=True)
        made[name] = network
    return made


def _side(name: str, case: Case, networks: list[torch.nn.Module], steps: int, device: str) -> Side:
    sft, policy = case.stage == "sft", networks[0]
    folder = Path(tempfile.mkdtemp(prefix="speed-"))
    arguments: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": case.batch,
        "max_length": case.length,
        "train_sampling_strategy": "sequential",
        "gradient_checkpointing": case.checkpointing,
        "bf16": device == "cuda",
        "use_cpu": device == "cpu",
        "dataloader_pin_memory": device == "cuda",
        "report_to": "none",
        "router_aux_loss_coef": BALANCE if sft and name != OURS else 0.0,
    }
    of_config, of_trainer = PREFERENCES.get(case.stage, (SFTConfig, SFTTrainer))
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
        "args": of_config(**({"packing": True} if sft else {"beta": BETA}), **arguments),
        "train_dataset": rows(case.stage, case.length, case.batch * steps, case.sizes["vocab_size"]),
        "processing_class": AutoTokenizer.from_pretrained(TOKENIZER),
        "peft_config": adapters if case.lora else None,
    }
    if not sft:
        common["ref_model"] = networks[1].requires_grad_(False) if _own_reference(case) else None
    torch.manual_seed(1)  # for the adapters' weights
    if name != OURS:
        return Side(of_trainer(**common))
    # transformers' loss is K where ours is 1, at balance
    coefficient = BALANCE * policy.config.num_experts_per_tok if sft else 0.0
    router = Router(load_balancing_coef=coefficient, z_loss_coef=0.0, scope="pooled", train="full")
    common |= {"router": router, "probe_file": folder / "probe.safetensors", "source_rows": {}}
    common |= {"places_of": lambda batch: [], "start": ""}
    stage, tokenizer = STAGES[case.stage], common["processing_class"]
    if (packing := stage.packing({"packing": True, "max_length": case.length})) is not None:
        common["train_dataset"] = pack(common["train_dataset"], packing)
    common["data_collator"] = stage.collator(common["args"], tokenizer, "sdpa")
    return Side(trainer_class(case.stage)(**common))
