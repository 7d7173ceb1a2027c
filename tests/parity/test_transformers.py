"""Our network beside transformers' OLMoE: same weights, same numbers, element by element."""

import random

import pytest
import torch
from support.networks import assert_close, pair

LAYOUTS = ["prefill", "cached decode", "left padding", "right padding", "packed"]


def drawn(seed: int) -> dict:
    """A configuration: every documented parameter that changes the numbers, drawn at random."""
    draw = random.Random(seed)
    heads = draw.choice([1, 2, 4, 6])
    experts = draw.choice([1, 2, 5, 8, 16])
    scaling = draw.choice([None, None, "linear", "dynamic"])
    return {
        "vocab_size": draw.choice([61, 97, 128]),
        "hidden_size": heads * draw.choice([4, 6, 8, 10, 16]),
        "intermediate_size": draw.choice([5, 8, 13, 24, 32]),
        "num_hidden_layers": draw.choice([1, 2, 3]),
        "num_attention_heads": heads,
        "num_key_value_heads": draw.choice([None, 1, heads]),
        "hidden_act": draw.choice(["silu", "silu", "gelu", "relu"]),
        "max_position_embeddings": draw.choice([14, 48]),
        "initializer_range": draw.choice([0.02, 0.1]),
        "rms_norm_eps": draw.choice([1e-6, 1e-5, 1e-2]),
        "tie_word_embeddings": draw.random() < 0.3,
        "rope_theta": draw.choice([100.0, 10000.0, 5e5]),
        "rope_scaling": scaling and {"type": scaling, "factor": draw.choice([1.5, 4.0])},
        "attention_bias": draw.random() < 0.4,
        "clip_qkv": draw.choice([None, None, 0.4, 2.0]),
        "num_experts": experts,
        "num_experts_per_tok": draw.choice(sorted({1, min(2, experts), experts})),
        "router_aux_loss_coef": draw.choice([0.01, 1.0]),
        "norm_topk_prob": draw.random() < 0.5,
    }


def batch(layout: str, vocabulary: int = 61) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, vocabulary, (2, 20))
    if layout == "packed":  # two documents a row, told apart by their positions alone
        positions = torch.cat([torch.arange(12), torch.arange(8)]).repeat(2, 1)
        return {"input_ids": ids, "position_ids": positions, "use_cache": False}  # with a cache, transformers leaks
    mask = torch.ones_like(ids)
    if layout == "right padding":
        mask[1, 13:] = 0
    if layout == "left padding":
        mask[1, :7] = 0
        return {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
    return {"input_ids": ids, "attention_mask": mask}


def decode(model, ids: torch.Tensor) -> dict[str, tuple[torch.Tensor, ...]]:
    """12 tokens at once, then one by one; in eval mode, without gradient."""
    outputs = []
    cache = None
    with torch.no_grad():
        for part in (ids[:, :12], *ids[:, 12:].split(1, dim=1)):
            output = model(part, past_key_values=cache, output_router_logits=True, output_hidden_states=True)
            outputs.append(output)
            cache = output.past_key_values
    return {
        "logits": tuple(output.logits for output in outputs),
        "aux_loss": tuple(output.aux_loss for output in outputs),
        "router_logits": sum((output.router_logits for output in outputs), ()),
        "hidden_states": sum((output.hidden_states for output in outputs), ()),
    }


def forward(model, layout: str, inputs: dict) -> dict:
    if layout == "cached decode":
        return decode(model.eval(), inputs["input_ids"])
    labels = inputs["input_ids"].masked_fill(inputs.get("attention_mask", torch.ones(())) == 0, -100)
    output = model(**inputs, labels=labels, output_router_logits=True, output_hidden_states=True)
    names = ("logits", "loss", "aux_loss", "router_logits", "hidden_states")
    return {name: getattr(output, name) for name in names}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", range(40))
def test_drawn_configurations_equal_transformers_in_every_number_and_gradient(seed, layout):
    stock, network = pair(**drawn(seed))
    inputs = batch(layout)
    expected, actual = forward(stock, layout, inputs), forward(network, layout, inputs)
    assert_close(actual, expected)
    if layout == "cached decode":
        return
    expected["loss"].backward()
    actual["loss"].backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert_close(gradients, {name: parameter.grad for name, parameter in stock.named_parameters()})


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", range(40))
def test_drawn_configurations_in_bf16(seed, layout):
    """Sizes are multiples of 8: at others transformers runs its loop, which sums the experts in bf16, one by one.

    One number is left out: transformers takes the softmax of `aux_loss` in bf16, we in fp32, and over the two tokens of
    a decoding step that alone can make 2e-2.
    """
    config = drawn(seed)
    config |= {"hidden_size": config["num_attention_heads"] * 8, "intermediate_size": 8 * (1 + seed % 4)}
    stock, network = pair(**config)
    stock, network, inputs = stock.bfloat16(), network.bfloat16(), batch(layout)
    expected, actual = forward(stock, layout, inputs), forward(network, layout, inputs)
    assert all(logits.dtype == torch.bfloat16 for logits in actual["router_logits"])
    if layout == "cached decode":
        del expected["aux_loss"], actual["aux_loss"]
    assert_close(actual, expected, 2e-2)
    if layout == "cached decode":
        return
    expected["loss"].backward()
    actual["loss"].backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert_close(gradients, {name: parameter.grad for name, parameter in stock.named_parameters()}, 2e-2)


@pytest.mark.parametrize("length", [10, 20])
@pytest.mark.parametrize(
    "scaling",
    [
        {"type": "yarn", "factor": 2.0},
        {"type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
        {"type": "longrope", "factor": 3.0, "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 2.1, 2.2, 2.3]},
    ],
    ids=lambda scaling: scaling["type"],
)
def test_transformers_further_position_scalings(scaling, length):
    """Below and above the length of 14 that the network is said to have been trained on."""
    stock, network = (model.eval() for model in pair(rope_scaling=scaling | {"original_max_position_embeddings": 14}))
    ids = batch("prefill")["input_ids"][:, :length]
    with torch.no_grad():
        assert_close(network(ids).logits, stock(ids).logits)


@pytest.mark.parametrize("arguments", [{}, {"num_beams": 3}, {"do_sample": True, "top_k": 5}])
def test_generation_equals_transformers(arguments):
    stock, network = (model.eval() for model in pair(num_key_value_heads=2))
    inputs = batch("left padding")
    del inputs["position_ids"]  # generate makes its own
    generated = []
    for model in (stock, network):
        torch.manual_seed(1)
        generated.append(model.generate(**inputs, max_new_tokens=12, **arguments))
    assert generated[0].tolist() == generated[1].tolist()
