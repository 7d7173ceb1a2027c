"""The engine of vLLM, held against a stand-in with its interface that our own network answers: vLLM needs a GPU."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from support import REPOSITORY
from support.networks import ours

from olmoe_ft.checkpoints.weights import save_whole
from olmoe_ft.data.tokenizer import load_tokenizer
from olmoe_ft.evaluation.engine import OlmoeEngine
from olmoe_ft.evaluation.requests import Ask, Pair
from olmoe_ft.evaluation.vllm_engine import VllmEngine, check_vllm
from olmoe_ft.recipe import UserError


class StandIn:
    """`vllm.LLM` as its documents describe it: lists of prompts of token ids, an output for each in order."""

    def __init__(self, model, tokenizer, dtype, seed):
        self.network, self.tokenizer = NETWORK[0], load_tokenizer(tokenizer, 512)

    def generate(self, prompts, wishes):
        wishes = wishes if isinstance(wishes, list) else [wishes] * len(prompts)
        return [self.one(prompt["prompt_token_ids"], wish) for prompt, wish in zip(prompts, wishes, strict=True)]

    def one(self, ids, wish):
        with torch.no_grad():
            logprobs = self.network(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        of_prompt = [None] + [
            {token: SimpleNamespace(logprob=float(row[token]), rank=1 + int((row > row[token]).sum()))}
            for row, token in zip(logprobs, ids[1:], strict=False)
        ]
        asks = [Ask(tuple(ids), wish.max_tokens, until=tuple(wish.stop or ()))]
        (said,) = OlmoeEngine(self.network, self.tokenizer, 1).generate(asks)
        return SimpleNamespace(
            prompt_logprobs=of_prompt if wish.prompt_logprobs else None,
            outputs=[SimpleNamespace(text=said.text, token_ids=said.tokens)],
        )


class Parameters(SimpleNamespace):
    def __init__(self, **values):
        super().__init__(**{"stop": None, "prompt_logprobs": None, **values})


NETWORK = []


@pytest.fixture
def engines(monkeypatch, tmp_path):
    network = ours(vocab_size=512, max_position_embeddings=64, eos_token_id=511, pad_token_id=1)
    tokenizer = load_tokenizer(str(REPOSITORY / "data/skills/tokenizer"), 512)
    save_whole(network, tokenizer, tmp_path / "model")
    NETWORK[:] = [network]
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = StandIn, Parameters
    monkeypatch.setitem(sys.modules, "vllm", module)
    own = OlmoeEngine(network, tokenizer, 4)
    return own, VllmEngine(str(tmp_path / "model"), tokenizer, "float32", own.end_tokens)


def test_outputs_and_log_likelihoods_are_our_own(engines):
    own, other = engines
    asks = [Ask((4, 8, 15), 6), Ask((16, 23), 4, until=("a",))]
    assert [(one.text, one.tokens) for one in other.generate(asks)] == [
        (one.text, one.tokens) for one in own.generate(asks)
    ]
    assert other.new_tokens == own.new_tokens > 0
    pairs = [Pair((4, 8, 15), (16, 23)), Pair((4, 8), (42,)), Pair((4,), (8, 15, 16))]
    for one, wanted in zip(other.weigh(pairs), own.weigh(pairs), strict=True):
        assert one.logprob == pytest.approx(wanted.logprob, abs=1e-5) and one.greedy == wanted.greedy


def test_where_it_cannot_be_used_it_says_so(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="vllm, which is not installed"):
        check_vllm("anything")
    monkeypatch.setattr("olmoe_ft.evaluation.vllm_engine.find_spec", lambda name: object())
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="olmoe-ft merge"):
        check_vllm(str(tmp_path))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="without accelerate launch"):
        check_vllm(str(tmp_path))
