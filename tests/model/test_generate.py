"""Our generation: the tokens of transformers' `generate`, whatever rows are beside a row and whenever they end."""

import pytest
import torch
from support.networks import ours, pair
from torch import Tensor

from olmoe_ft.model import OlmoeForCausalLM
from olmoe_ft.model.choices import busiest
from olmoe_ft.model.experts import few_rows
from olmoe_ft.model.generate import Generated, generate
from olmoe_ft.model.row_cache import COLUMNS, RowCache
from olmoe_ft.model.sampling import Sampling, draw

PROMPTS = [[5, 17, 33, 4, 60], [7, 7, 12], [31, 2, 44, 3, 9, 21, 8, 90, 11], [88], list(range(40, 60)), [9, 3, 70, 6]]
PAD = 1


def stock_tokens(stock, prompts, most: int, ends=None) -> list[list[int]]:
    """What transformers generates for a left-padded batch, each row up to the token that ended it."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    options = {"max_new_tokens": most, "do_sample": False, "eos_token_id": ends, "pad_token_id": PAD}
    rows = stock.generate(input_ids=ids, attention_mask=mask, **options)[:, longest:].tolist()
    return [cut(row, ends or ()) for row in rows]


def cut(tokens: list[int], ends) -> list[int]:
    found = [place for place, token in enumerate(tokens) if token in ends]
    return tokens[: found[0] + 1] if found else tokens


def tokens_of(generated: list[Generated]) -> list[list[int]]:
    return [each.tokens for each in generated]


def greedy(model, prompts, most: int, ends=(), **options) -> list[list[int]]:
    return tokens_of(generate(model, prompts, max_new_tokens=[most] * len(prompts), end_tokens=ends, **options))


@pytest.fixture(params=["small matrices", "large ones"])
def sizes(request, monkeypatch) -> None:
    """Both ways in which experts of a few rows are multiplied."""
    if request.param == "large ones":
        monkeypatch.setattr(few_rows, "WORTH_THREADS", 1)


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("options", [{}, {"num_key_value_heads": 2}, {"attn_implementation": "eager"}])
def test_the_tokens_of_transformers(options):
    """Also of two chosen end tokens, which end rows at different steps, and of a batch of one."""
    stock, model = pair(**options)
    expected = stock_tokens(stock, PROMPTS, 20)
    assert greedy(model, PROMPTS, 20) == expected
    assert [greedy(model, [prompt], 20)[0] for prompt in PROMPTS] == expected
    ends = [expected[0][3], expected[4][11]]
    ended = stock_tokens(stock, PROMPTS, 20, ends)
    assert len({len(row) for row in ended}) > 2
    assert greedy(model, PROMPTS, 20, ends) == ended


@pytest.mark.usefixtures("sizes")
def test_a_rows_tokens_do_not_depend_on_its_company():
    """64 prompts together, in other orders, and in batches of other sizes."""
    model = ours()
    prompts = torch.randint(3, 97, (64, 24)).tolist()
    prompts = [prompt[: 1 + number % 24] for number, prompt in enumerate(prompts)]
    expected = greedy(model, prompts, 12, [2, 40])
    assert len({len(row) for row in expected}) > 3
    for size in (1, 7, 16, 63):
        batches = [prompts[start : start + size] for start in range(0, 64, size)]
        assert [row for batch in batches for row in greedy(model, batch, 12, [2, 40])] == expected
    order = torch.randperm(64).tolist()
    assert greedy(model, [prompts[row] for row in order], 12, [2, 40]) == [expected[row] for row in order]


def test_every_row_has_its_own_number_of_tokens():
    model = ours()
    whole = greedy(model, PROMPTS, 9)
    most = [3, 0, 9, 1, 5, 9]
    generated = generate(model, PROMPTS, max_new_tokens=most, end_tokens=())
    assert tokens_of(generated) == [row[:number] for row, number in zip(whole, most, strict=True)]
    # of every token, two experts in each of three layers
    assert [each.experts.sum(dim=-1).tolist() for each in generated] == [[2 * number] * 3 for number in most]
    assert generate(model, [], max_new_tokens=[], end_tokens=()) == []


def test_the_caller_can_end_a_row():
    model = ours()
    whole = greedy(model, PROMPTS, 9)
    seen: list[tuple[int, list[int]]] = []

    def stopped(row: int, new: list[int]) -> bool:
        seen.append((row, list(new)))
        return row == 2 and new == whole[2][:4]

    assert greedy(model, PROMPTS, 9, stopped=stopped) == [*whole[:2], whole[2][:4], *whole[3:]]
    assert [new for row, new in seen if row == 2] == [whole[2][:number] for number in (1, 2, 3, 4)]


def test_prompts_are_read_in_parts_of_a_limited_size(monkeypatch):
    """With room for 10 tokens: 5 + 3, 9 + 1, 20, 4."""
    model = ours()
    expected = greedy(model, PROMPTS, 5)
    monkeypatch.setattr("olmoe_ft.model.generate.PACKED", 10)
    read = []
    model.lm_head.register_forward_hook(lambda module, given, output: read.append(len(output)))
    assert greedy(model, PROMPTS, 5) == expected
    assert read[:4] == [2, 2, 1, 1]


def test_the_cache_grows(monkeypatch):
    """Over two of its steps; the model has no more positions than it needs."""
    monkeypatch.setattr("olmoe_ft.model.row_cache.COLUMNS", 4)
    model = ours(max_position_embeddings=64)
    assert greedy(model, PROMPTS[:3], 11) == [row[:11] for row in by_hand(model, PROMPTS[:3], 11)[0]]
    assert COLUMNS > 11  # what the other tests of this file do not reach


def by_hand(model: OlmoeForCausalLM, prompts, most: int) -> tuple[list[list[int]], Tensor]:
    """Greedy tokens by a pass over the whole row for each, and the choices (B, L, E) at the places they come from."""
    rows, counts = [], torch.zeros(len(prompts), model.config.num_hidden_layers, model.config.num_experts)
    for row, prompt in enumerate(prompts):
        ids = list(prompt)
        for _ in range(most):
            with torch.no_grad():
                output = model(torch.tensor([ids]), use_cache=False, output_router_logits=True)
            for layer, logits in enumerate(output.router_logits):
                for expert in logits[-1].softmax(-1).topk(model.config.num_experts_per_tok).indices.tolist():
                    counts[row, layer, expert] += 1
            ids.append(int(output.logits[0, -1].argmax()))
        rows.append(ids[len(prompt) :])
    return rows, counts


def test_experts_are_counted_where_a_token_comes_from():
    """The first token from the prompt's last place; a row that has ended counts no more."""
    model = ours()
    expected, _ = by_hand(model, PROMPTS, 8)
    end = expected[1][4]
    lengths = [len(cut(row, [end])) for row in expected]
    assert min(lengths) < 8
    generated = generate(model, PROMPTS, max_new_tokens=[8] * len(PROMPTS), end_tokens=[end])
    for prompt, length, each in zip(PROMPTS, lengths, generated, strict=True):
        assert torch.equal(each.experts.float(), by_hand(model, [prompt], length)[1][0])


def test_the_busiest_experts():
    """Of layer 0's eight choices six are expert 2's and two expert 0's; of layer 1's four, one each of 0 to 3."""
    counts = torch.tensor([[2, 0, 6, 0], [1, 1, 1, 1]])
    assert busiest(counts) == [(0, 2, 0.75), (0, 0, 0.25), (1, 0, 0.25)]
    assert busiest(torch.tensor([[0, 3], [0, 0]])) == [(0, 1, 1.0)]


def test_nothing_is_left_behind():
    """The mode of each module, torch's random numbers, the gradient mode and the outputs of the next pass."""
    model = ours(attention_dropout=0.5).train()
    model.model.layers[1].eval()
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    options = {"max_new_tokens": [6] * len(PROMPTS), "end_tokens": (), "sampling": [Sampling(), *[None] * 5]}
    first = generate(model, PROMPTS, **options)
    assert torch.equal(torch.get_rng_state(), state) and torch.is_grad_enabled()
    assert [module.training for module in model.modules()] == modes
    assert tokens_of(generate(model.eval(), PROMPTS, **options)) == tokens_of(first)  # without dropout both times
    model.train()

    def refuse(row: int, new: list[int]) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        greedy(model, PROMPTS, 6, stopped=refuse)
    assert all(module.training for module in model.modules())


def test_inference_mode_is_left_to_weights_that_stay():
    """What ZeRO-3 gathers in it could not be trained afterwards; its weights have a `ds_id`.

    The counts are usual tensors.
    """
    model, modes = ours(), []
    model.lm_head.register_forward_hook(lambda *_: modes.append(torch.is_inference_mode_enabled()))
    (result,) = generate(model, [[5]], max_new_tokens=[2], end_tokens=())
    model.model.norm.weight.ds_id = 0
    assert greedy(model, [[5]], 2) == [result.tokens] and modes == [True, True, False, False]
    assert not result.experts.is_inference()
    model(torch.tensor([[5]]), labels=torch.tensor([[5]])).logits.sum().backward()


def test_bf16():
    """Logits are rounded to 8 bits, so that another order of sums can change a token: a row and its company agree with
    transformers on the first tokens, and all are of the vocabulary."""
    stock, model = (each.to(torch.bfloat16) for each in pair())
    together, expected = greedy(model, PROMPTS, 12), stock_tokens(stock, PROMPTS, 12)
    assert [row[0] for row in together] == [row[0] for row in expected]
    assert sum(new == old for row in zip(together, expected, strict=True) for new, old in zip(*row, strict=True)) > 36
    assert all(len(row) == 12 for row in together)


def test_sampling_is_a_rows_own():
    """The same seed gives the same tokens alone, beside others, at another place, and whatever others draw."""
    model = ours(vocab_size=97)
    how = [Sampling(seed=seed, temperature=1.5) for seed in range(6)]
    together = greedy(model, PROMPTS, 10, sampling=how)
    alone = [greedy(model, [prompt], 10, sampling=[one]) for prompt, one in zip(PROMPTS, how, strict=True)]
    assert alone == [[row] for row in together]
    mixed = greedy(model, PROMPTS[::-1], 10, sampling=[None, *how[:5][::-1]])
    assert mixed[1:] == together[:5][::-1] and mixed[0] == greedy(model, PROMPTS[5:], 10)[0]
    assert greedy(model, PROMPTS[:1] * 2, 10, sampling=[Sampling(seed=1), Sampling(seed=2)])[0] != together[0]


def test_draws_by_hand():
    """Probabilities 0.2, 0.5, 0.3; in falling order token 1 up to 0.5, token 2 up to 0.8, token 0 up to 1.

    With top_p 0.6 tokens 1 and 2 remain, of together 0.8: token 1 up to 5/8. With 0.5 token 1 alone. At temperature 1/2
    the probabilities are squared, 0.04, 0.25 and 0.09 of 0.38: token 1 up to 0.658, token 2 up to 0.895.
    """
    cases = [
        (1, 1, 0.0, 1), (1, 1, 0.49, 1), (1, 1, 0.51, 2), (1, 1, 0.79, 2), (1, 1, 0.81, 0), (1, 1, 0.9999, 0),
        (1, 0.6, 0.62, 1), (1, 0.6, 0.63, 2), (1, 0.6, 0.9999, 2), (1, 0.49, 0.9999, 1),
        (0.5, 1, 0.65, 1), (0.5, 1, 0.66, 2), (0.5, 1, 0.89, 2), (0.5, 1, 0.9, 0),
    ]  # fmt: skip
    logits = torch.tensor([0.2, 0.5, 0.3]).log().repeat(len(cases), 1)
    settings = torch.tensor([case[:3] for case in cases], dtype=torch.float64).T
    assert draw(logits, *settings).tolist() == [case[3] for case in cases]


def test_sampled_tokens_follow_the_distribution():
    """4,000 first tokens of as many seeds: each one's share is within five standard deviations of its probability."""
    model = ours(num_hidden_layers=1)
    with torch.no_grad():
        p = (model(torch.tensor([PROMPTS[1]])).logits[0, -1] / 0.7).softmax(-1)
    how = [Sampling(seed=seed, temperature=0.7) for seed in range(4000)]
    drawn = torch.tensor(greedy(model, [PROMPTS[1]] * 4000, 1, sampling=how)).flatten()
    shares = drawn.bincount(minlength=97) / 4000
    assert ((shares - p).abs() <= 5 * (p * (1 - p) / 4000).sqrt() + 1e-3).all()


def test_masks_begin_at_whole_16_bytes():
    """CUDA's attention refuses others: prompts of 40, 37 and 10 tokens, of which the longest leaves first."""
    cache = RowCache(1, [40, 37, 10], torch.device("cpu"))
    keys = torch.zeros(1, 2, 87, 4)
    cache.begin_prompts([0, 1, 2])
    cache.update(keys, keys, 0)
    for stays in ([1, 2], [1]):
        cache.keep(stays)
        cache.begin_step()
        assert cache.mask(True).storage_offset() % 8 == 0
        assert cache.mask(False).sum(-1).tolist()[-1] == cache.end - cache.first[-1]


def test_rows_that_have_left_take_no_memory_when_it_grows():
    cache = RowCache(1, [4] * 64, torch.device("cpu"))
    keys = torch.zeros(1, 2, 256, 4)
    cache.begin_prompts(range(64))
    cache.update(keys, keys, 0)
    cache.keep([0])
    for _ in range(COLUMNS + 1):
        cache.begin_step()
    assert cache.memory.shape[2] == 1
