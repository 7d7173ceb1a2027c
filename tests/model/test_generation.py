"""Generation: what a row gets does not depend on the rows beside it."""

import pytest
import torch
from support.networks import assert_close, ours

TEXTS = [[5, 17, 33, 4, 60], [7, 7, 12], [31, 2, 44, 3, 9, 21, 8, 90, 11]]


def left_padded(texts: list[list[int]]) -> dict[str, torch.Tensor]:
    longest = max(map(len, texts))
    ids = [[1] * (longest - len(text)) + text for text in texts]
    mask = [[0] * (longest - len(text)) + [1] * len(text) for text in texts]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


@pytest.mark.parametrize("back_end", ["eager", "sdpa"])
@pytest.mark.parametrize("experts", ["olmoe_grouped", "eager"])
def test_a_rows_logits_do_not_depend_on_its_company(back_end, experts):
    model = ours(attn_implementation=back_end, experts_implementation=experts, eos_token_id=None)
    options = {"max_new_tokens": 6, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    together = model.generate(**left_padded(TEXTS), **options)
    for row, text in enumerate(TEXTS):
        alone = model.generate(**left_padded([text]), **options)
        assert alone.sequences[0, len(text) :].tolist() == together.sequences[row, -6:].tolist()
        for step in range(6):
            assert_close(together.logits[step][row], alone.logits[step][0])


def test_greedy_takes_the_likeliest_token_each_time():
    model = ours(eos_token_id=None)
    ids = torch.tensor([TEXTS[0]])
    generated = model.generate(ids, max_new_tokens=5, do_sample=False)
    for _ in range(5):
        with torch.no_grad():
            ids = torch.cat([ids, model(ids, use_cache=False).logits[:, -1:].argmax(-1)], dim=1)
    assert generated.tolist() == ids.tolist()


def test_beams_find_a_text_at_least_as_likely_as_greedy_search():
    model = ours(eos_token_id=None)
    inputs = left_padded(TEXTS)

    def log_likelihood(sequences: torch.Tensor) -> torch.Tensor:
        mask = torch.cat([inputs["attention_mask"], torch.ones(3, 4, dtype=torch.long)], dim=1)
        with torch.no_grad():
            scores = model(sequences, attention_mask=mask, position_ids=mask.cumsum(-1) - 1).logits.log_softmax(-1)
        return scores[:, -5:-1].gather(-1, sequences[:, -4:, None]).sum(dim=(1, 2))

    greedy, beams = (model.generate(**inputs, max_new_tokens=4, do_sample=False, num_beams=n) for n in (1, 8))
    assert (log_likelihood(beams) >= log_likelihood(greedy) - 1e-4).all()
    assert not torch.equal(beams, greedy)


def test_sampling_follows_the_distribution():
    """4,000 first tokens: each one's frequency is within five standard deviations of its probability."""
    model = ours(eos_token_id=None)
    ids = torch.tensor([TEXTS[1]])
    with torch.no_grad():
        p = model(ids).logits[0, -1].softmax(-1)
    drawn = model.generate(ids.repeat(4000, 1), max_new_tokens=1, do_sample=True, top_k=0)[:, -1]
    frequencies = drawn.bincount(minlength=97) / 4000
    assert ((frequencies - p).abs() <= 5 * (p * (1 - p) / 4000).sqrt() + 1e-3).all()


def test_what_earlier_batches_held_does_not_matter():
    """Dynamic RoPE rescales beyond 48 positions; a batch of 70 must leave no trace in one of 60."""
    model = ours(rope_scaling={"type": "dynamic", "factor": 2.0})
    ids = torch.arange(3, 63).unsqueeze(0)
    with torch.no_grad():
        before = model(ids).logits
        model(torch.arange(3, 73).unsqueeze(0))
        assert torch.equal(model(ids).logits, before)
