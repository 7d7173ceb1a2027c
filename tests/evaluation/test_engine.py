"""What the engine answers: numbers by hand, whatever shares a batch, and no more than asked."""

import math
from dataclasses import replace

import pytest
import torch
from support import REPOSITORY
from support.networks import ours

from olmoe_ft.data.tokenizer import load_tokenizer
from olmoe_ft.evaluation.engine import Interrupted, OlmoeEngine, end_tokens
from olmoe_ft.evaluation.requests import Ask, Pair

VOCABULARY = 512


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(str(REPOSITORY / "data/skills/tokenizer"), VOCABULARY)


@pytest.fixture
def network():
    model = ours(vocab_size=VOCABULARY, max_position_embeddings=64, eos_token_id=511, pad_token_id=1)
    with torch.no_grad():
        model.lm_head.weight.mul_(5)  # no two tokens alike
    return model


def pairs(count: int = 9) -> list[Pair]:
    generator = torch.Generator().manual_seed(1)
    lengths = [(3 + 5 * index % 17, 1 + index % 4) for index in range(count)]
    return [
        Pair(*(tuple(torch.randint(3, 500, (length,), generator=generator).tolist()) for length in both))
        for both in lengths
    ]


def by_hand(network, pair: Pair) -> float:
    """The sum of the log-softmax of each token behind those before it, one row without padding."""
    ids = torch.tensor([[*pair.context, *pair.continuation]])
    with torch.no_grad():
        logprobs = network(input_ids=ids).logits[0].double().log_softmax(-1)
    places = range(len(pair.context) - 1, ids.shape[1] - 1)
    return sum(float(logprobs[place, ids[0, place + 1]]) for place in places)


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_a_continuation_weighs_the_sum_of_its_tokens(network, tokenizer, batch_size):
    found = OlmoeEngine(network, tokenizer, batch_size).weigh(pairs())
    for one, pair in zip(found, pairs(), strict=True):
        assert one.logprob == pytest.approx(by_hand(network, pair), abs=1e-5)


def test_choices_of_one_last_token_are_read_off_one_row(network, tokenizer):
    """Four letters behind the same prompt: one row of the network, four sums."""
    rows = []
    network.model.register_forward_pre_hook(
        lambda _, arguments, keywords: rows.append(keywords["input_ids"].shape), with_kwargs=True
    )
    choices = [Pair((5, 6, 7), (8, last)) for last in (20, 21, 22, 23)]
    found = OlmoeEngine(network, tokenizer, 4).weigh(choices)
    assert rows == [(1, 4)]
    for one, pair in zip(found, choices, strict=True):
        assert one.logprob == pytest.approx(by_hand(network, pair), abs=1e-5)


def test_greedy_is_said_where_every_token_is_the_likeliest(network, tokenizer):
    context = (4, 8, 15)
    with torch.no_grad():
        best = int(network(input_ids=torch.tensor([context])).logits[0, -1].argmax())
    found = OlmoeEngine(network, tokenizer, 2).weigh([Pair(context, (best,)), Pair(context, (best - 1,))])
    assert [one.greedy for one in found] == [True, False]


def test_the_busiest_experts_are_those_of_the_scored_tokens(network, tokenizer):
    """One token is scored behind three: each of the layers has chosen 2 of 8 experts, so each has half of the choices;
    they are those that the router likes best at the place before the token."""
    (found,) = OlmoeEngine(network, tokenizer, 1).weigh([Pair((4, 8, 15), (16,))])
    with torch.no_grad():
        logits = network.model(input_ids=torch.tensor([[4, 8, 15]]), output_router_logits=True).router_logits
    chosen = {(layer, expert) for layer, one in enumerate(logits) for expert in one[-1].topk(2).indices.tolist()}
    assert {(layer, expert) for layer, expert, _ in found.experts} <= chosen
    assert [share for _, _, share in found.experts] == [0.5] * 3


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_loads_are_the_choices_for_every_scored_and_generated_token_by_task(network, tokenizer, batch_size):
    """Of 9 pairs and their 9 contexts continued by 5 tokens, odd ones of another task; one row at a time by hand. Of a
    text x of n tokens behind a context of m, the places m - 1 to m + n - 2 bring it forth."""
    asked = [replace(pair, task="odd" if index % 2 else "even") for index, pair in enumerate(pairs())]
    engine = OlmoeEngine(network, tokenizer, batch_size)
    engine.weigh(asked)
    said = engine.generate([Ask(pair.context, 5, task=f"say {pair.task}") for pair in asked])
    texts = [(pair.task, pair.context, pair.continuation) for pair in asked]
    texts += [(f"say {pair.task}", pair.context, one.tokens) for pair, one in zip(asked, said, strict=True)]
    expected = {}
    for task, context, behind in texts:
        with torch.no_grad():
            ids = torch.tensor([[*context, *behind]])
            outputs = network.model(input_ids=ids, output_router_logits=True)
        counts = expected.setdefault(task, [[0] * 8 for _ in outputs.router_logits])
        for layer, logits in enumerate(outputs.router_logits):
            for token in logits[len(context) - 1 : ids.shape[1] - 1].topk(2).indices.tolist():
                for expert in token:
                    counts[layer][expert] += 1
    assert engine.loads() == expected and expected.keys() == {"odd", "even", "say odd", "say even"}


def test_a_row_that_choices_share_counts_once(network, tokenizer):
    """Four letters behind one prompt, each two tokens long: two experts for two tokens in each layer, not 16."""
    engine = OlmoeEngine(network, tokenizer, 4)
    engine.weigh([Pair((5, 6, 7), (8, last), "letters") for last in (20, 21, 22, 23)])
    assert [sum(layer) for layer in engine.loads()["letters"]] == [4] * network.config.num_hidden_layers


def test_a_prompt_beyond_the_positions_loses_its_start(network, tokenizer):
    """64 positions: of 70 + 2 tokens the last 64 before the last one are seen."""
    context, rest = tuple(range(10, 80)), (5, 6)
    (found,) = OlmoeEngine(network, tokenizer, 1).weigh([Pair(context, rest)])
    assert found.logprob == pytest.approx(by_hand(network, Pair(context[-63:], rest)), abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_greedy_outputs_are_those_of_the_network_alone(network, tokenizer, batch_size):
    """Whatever is beside it in the batch: each prompt by itself, the likeliest token again and again."""
    asks = [Ask(pair.context, 5) for pair in pairs()]
    found = OlmoeEngine(network, tokenizer, batch_size).generate(asks)
    for one, ask in zip(found, asks, strict=True):
        tokens = list(ask.tokens)
        with torch.no_grad():
            for _ in range(5):
                tokens.append(int(network(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
        assert list(one.tokens) == tokens[len(ask.tokens) :]


def test_an_output_ends_before_the_text_to_stop_at(network, tokenizer):
    """The text to stop at is spelled by two tokens; what is in front of it stays, and nothing is generated behind."""
    ask = Ask((4, 8, 15), 12)
    engine = OlmoeEngine(network, tokenizer, 4)
    (free,) = engine.generate([ask])
    stop = tokenizer.decode(free.tokens[5:7])
    (found,) = engine.generate([Ask(ask.tokens, 12, until=(stop,))])
    assert found.text == free.text.split(stop)[0]
    assert len(found.tokens) <= 7


def test_every_token_that_ends_a_turn_ends_an_output(network, tokenizer):
    """The generation config names other ends than the tokenizer; both stop."""
    network.generation_config.eos_token_id = [7, 9]
    assert end_tokens(network.generation_config, tokenizer) == {7, 9, tokenizer.eos_token_id}
    (free,) = OlmoeEngine(network, tokenizer, 1).generate([Ask((4, 8, 15), 6)])
    network.generation_config.eos_token_id = free.tokens[2]
    (found,) = OlmoeEngine(network, tokenizer, 1).generate([Ask((4, 8, 15), 6)])
    assert found.tokens == free.tokens[:3]


def test_a_process_that_is_to_stop_gives_up(network, tokenizer):
    """Asked before each batch: of nine requests in batches of four none is answered after the first batch."""
    asked = []

    def stop() -> bool:
        asked.append(True)
        return len(asked) > 1

    with pytest.raises(Interrupted):
        OlmoeEngine(network, tokenizer, 4, stop=stop).weigh(pairs())
    assert len(asked) == 2


def test_logprobs_are_computed_in_fp32(network, tokenizer):
    """In bf16 the log-softmax of 512 tokens would be off by up to 2^-8 of its size, 0.02 and more."""
    pair = Pair((4, 8, 15), (16,))
    network = network.bfloat16()
    (found,) = OlmoeEngine(network, tokenizer, 1).weigh([pair])
    with torch.no_grad():
        logits = network(input_ids=torch.tensor([pair.context])).logits[0, -1].double()
    assert found.logprob == pytest.approx(float(logits.log_softmax(-1)[16]), abs=1e-4)
    assert not math.isclose(float(logits.bfloat16().log_softmax(-1)[16]), found.logprob, abs_tol=1e-4)
