"""What the network does on a GPU, run on tensors of the meta device, which have a shape, strides and no content.

Whatever looks at a value, and would make a GPU wait for the host, is an error there, and `F.grouped_mm` and torch's
variable-length kernel check types, alignment and strides. Values are compared elsewhere: `test_experts.py`,
`test_documents.py`, `test_kernels.py`.
"""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.networks import ours, scoring

from olmoe_ft.adapters.lora import ATTENTION, EXPERTS
from olmoe_ft.model import OlmoeForCausalLM, attention_plan
from olmoe_ft.model.experts.matmul import force_strategy
from olmoe_ft.objective import RouterObjective, Routing
from olmoe_ft.planning.stand_ins import as_on_a_gpu
from olmoe_ft.stages import STAGES

TOKENS, KEYS = 32, 40


@pytest.fixture(autouse=True)
def as_on_cuda(monkeypatch):
    """The choices that are made on a GPU; autocast does not know the meta device."""
    monkeypatch.setattr(attention_plan, "varlen_works", lambda config, x: True)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device=None: False)
    with force_strategy("at_once"):
        yield


def network(**options) -> OlmoeForCausalLM:
    return ours(hidden_size=64, intermediate_size=32, **options).to("meta", torch.bfloat16).train()


def step(network: OlmoeForCausalLM, told: bool = True, shared: bool = False) -> torch.Tensor:
    """Forward and backward of a packed row with router losses; `told`: the collator gives the documents' bounds."""
    with torch.device("meta"):
        ids, bounds = torch.zeros(1, TOKENS, dtype=torch.long), torch.zeros(4, dtype=torch.int32)
        given: dict[str, Any] = {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds} if told else {}
        given |= {"max_length_q": TOKENS, "max_length_k": TOKENS} if told else {}
        given |= {"key_places": torch.zeros(KEYS, dtype=torch.long)} if shared else {}
        output = network.model(ids, position_ids=ids, use_cache=False, output_router_logits=True, **given)
        routing = Routing.of(output.router_logits, network.config.num_experts_per_tok, torch.ones(TOKENS))
        objective = RouterObjective(0.01, 0.001, "layer")
        objective.total(output.last_hidden_state.float().mean(), objective.terms(routing)).backward()
    return output.last_hidden_state


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("heads", [4, 2])
def test_a_step_asks_for_no_value(heads, shared):
    model = network(num_key_value_heads=heads)
    assert step(model, shared=shared).shape == (1, TOKENS, 64)
    # the loss is of hidden states
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == ["lm_head.weight"]


def test_a_step_with_adapters_asks_for_no_value():
    """Of rank 4, which the kernel takes padded to 16 bytes; nothing else gets a gradient."""
    model = network()
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=ATTENTION, target_parameters=EXPERTS)).to("meta")
    step(model)
    trained = {name for name, weight in adapted.named_parameters() if weight.grad is not None}
    assert trained == {name for name, _ in adapted.named_parameters() if "lora_" in name}


@pytest.mark.parametrize("told", [True, False])
def test_the_head_asks_for_no_value_where_the_collator_tells_the_labels_places(told):
    """Through the trainers' head, forward and backward."""
    model = scoring(hidden_size=64, intermediate_size=32).to("meta", torch.bfloat16).train()
    model.fields = STAGES["sft"].fields(None)
    with torch.device("meta"), as_on_a_gpu():
        ids, bounds = torch.zeros(1, TOKENS, dtype=torch.long), torch.zeros(4, dtype=torch.int32)
        given: dict[str, Any] = {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "position_ids": ids}
        given |= {"max_length_q": TOKENS, "max_length_k": TOKENS}
        given |= {"places": torch.zeros(7, dtype=torch.long)} if told else {}
        with nullcontext() if told else pytest.raises((RuntimeError, NotImplementedError), match="meta"):
            output = model(ids, labels=ids, fused_lm_head=True, **given)
            output.log_probs.sum().backward()
            assert all(weight.grad is not None for weight in model.parameters())


def test_what_looks_at_a_value_is_seen():
    """Documents that have to be found in the positions, and experts one by one."""
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        step(network(), told=False)
    with force_strategy("by_expert"), pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        step(network())
