"""The grouped experts beside the plain loop, at any size, dtype and gradient layout, compiled or not."""

import pytest
import torch
from support.networks import SMALL, assert_close, ours, pair
from torch.func import functional_call, grad, vmap

from olmoe_ft.model import OlmoeConfig, OlmoeForCausalLM, OlmoeModel
from olmoe_ft.model.experts import matmul
from olmoe_ft.model.experts.activation import SILU
from olmoe_ft.model.experts.autograd import grouped_experts
from olmoe_ft.model.experts.dispatch import Routes
from olmoe_ft.model.experts.layer import OlmoeExperts
from olmoe_ft.model.experts.matmul import AllExperts, thread_pool


def experts(**options) -> OlmoeExperts:
    module = OlmoeExperts(OlmoeConfig(**{**SMALL, **options}, experts_implementation="eager"))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.2)
    return module


def routed(tokens: int, num_experts: int, per_token: int) -> tuple[torch.Tensor, torch.Tensor]:
    chosen = torch.rand(tokens, num_experts).topk(per_token).indices
    return chosen, torch.rand(tokens, per_token)


def results(implementation, module, x, chosen, weights) -> dict[str, torch.Tensor]:
    """Output and gradients, under an incoming gradient of stride 0, as `.sum()` makes it."""
    x, weights = x.clone().requires_grad_(), weights.clone().requires_grad_()
    module.zero_grad()
    y = implementation(module, x, chosen, weights)
    y.sum().backward()
    gradients = {name: parameter.grad.clone() for name, parameter in module.named_parameters()}
    return {"y": y.detach(), "x": x.grad, "weights": weights.grad, **gradients}


def loop(module, *arguments):
    return module(*arguments)


@pytest.mark.parametrize(
    ("hidden", "intermediate", "num_experts", "per_token"),
    [(32, 24, 8, 2), (32, 24, 8, 8), (32, 24, 1, 1), (20, 5, 6, 3), (6, 2, 64, 8)],
)
def test_grouped_products_equal_the_loop(hidden, intermediate, num_experts, per_token):
    options = {"hidden_size": hidden, "num_attention_heads": 1, "intermediate_size": intermediate}
    module = experts(num_experts=num_experts, num_experts_per_tok=per_token, **options)
    x, (chosen, weights) = torch.randn(11, hidden), routed(11, num_experts, per_token)
    assert_close(results(grouped_experts, module, x, chosen, weights), results(loop, module, x, chosen, weights), 1e-5)


def test_an_expert_nobody_chose_gets_a_zero_gradient():
    module = experts()
    chosen = torch.tensor([[0, 7], [7, 0], [0, 7]])
    gradient = results(grouped_experts, module, torch.randn(3, 32), chosen, torch.rand(3, 2))["down_proj"]
    assert not gradient[1:7].any() and gradient[0].any() and gradient[7].any()


def test_weights_are_read_once_a_pass():
    """PEFT hangs its factors on the weights as a parametrization: each read builds all experts' weights anew."""

    class Counted(torch.nn.Module):
        reads = 0

        def forward(self, weight):
            Counted.reads += 1
            return weight

    module = experts()
    for name in ("gate_up_proj", "down_proj"):
        torch.nn.utils.parametrize.register_parametrization(module, name, Counted(), unsafe=True)
    Counted.reads = 0
    grouped_experts(module, torch.randn(3, 32), *routed(3, 8, 2))
    assert Counted.reads == 2


NEVER = 2**62
WAYS = {"all at once": (NEVER, NEVER), "one by one": (NEVER, 0), "on threads": (0, 0)}  # what is worth threads, a call


@pytest.mark.parametrize("activation", ["silu", "gelu"])
@pytest.mark.parametrize("adapters", [0, 2])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_multiplying_gives_the_loops_numbers(monkeypatch, way, adapters, activation):
    """Output and every gradient in fp32, one expert without a token; adapters by weights that are folded.

    Threads are asked for three times: up to what is kept, from there to the output, and back.
    """
    monkeypatch.setattr(matmul, "WORTH_THREADS", WAYS[way][0])
    monkeypatch.setattr(matmul, "WORTH_A_CALL", WAYS[way][1])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    called = []
    monkeypatch.setattr(matmul, "thread_pool", lambda count: called.append(count) or thread_pool(count))
    module, (chosen, weights) = experts(hidden_act=activation), routed(40, 7, 2)
    x, weights = torch.randn(40, 32, requires_grad=True), weights.requires_grad_()
    names = ("gate_up_proj", "down_proj")
    shapes = {name: getattr(module, name).shape for name in names}
    factors = {
        name: [(torch.randn(e, out, 8) / 8, torch.randn(e, 8, inner) / 8, 0.5) for _ in range(adapters)]
        for name, (e, out, inner) in shapes.items()
    }
    leaves = [matrix.requires_grad_() for name in names for b, a, _ in factors[name] for matrix in (b, a)]
    leaves += [x, weights, *module.parameters()]
    direction = torch.randn(40, 32)
    module.low_rank_factors = factors
    found = grouped_experts(module, x, chosen, weights)
    gradients = torch.autograd.grad((found * direction).sum(), leaves)
    folded = {name: getattr(module, name) + sum(s * b @ a for b, a, s in factors[name]) for name in names}
    expected = functional_call(module, folded, (x, chosen, weights))
    assert_close(found, expected, 2e-5)
    assert_close(gradients, torch.autograd.grad((expected * direction).sum(), leaves), 1e-4)
    assert called == ([2, 2, 2] if way == "on threads" else [])


def test_rows_that_nothing_trained_needs_are_not_gathered(monkeypatch):
    """Forward the tokens' rows; backward the gradient's, and the tokens' again for the gradient of `gate_up`."""
    gathers, gather = [], AllExperts.gather
    monkeypatch.setattr(AllExperts, "gather", lambda *given: gathers.append(given) or gather(*given))
    module, (chosen, weights) = experts(), routed(11, 8, 2)
    x = torch.randn(11, 32, requires_grad=True)
    for trained, count in ((True, 3), (False, 2)):
        gathers.clear()
        module.gate_up_proj.requires_grad_(trained)
        grouped_experts(module, x, chosen, weights).sum().backward()
        assert len(gathers) == count


def test_a_graph_that_is_kept_goes_back_twice():
    module, (chosen, weights) = experts(), routed(11, 8, 2)
    y = grouped_experts(module, torch.randn(11, 32), chosen, weights).square().sum()
    y.backward(retain_graph=True)
    once = {name: weight.grad.clone() for name, weight in module.named_parameters()}
    y.backward()
    assert_close({name: weight.grad for name, weight in module.named_parameters()}, {n: 2 * g for n, g in once.items()})


def test_rows_stand_by_expert_in_the_tokens_order():
    """Numbers of experts beyond a byte; two tokens of one expert keep their order."""
    routes = Routes.of(torch.tensor([[299, 0], [7, 299], [0, 299]]), 300)
    assert routes.order.tolist() == [1, 4, 2, 0, 3, 5] and routes.token.tolist() == [0, 2, 1, 0, 1, 2]
    assert routes.place.tolist() == [[3, 0], [2, 4], [1, 5]]
    assert routes.ends[[0, 6, 7, 298, 299]].tolist() == [2, 2, 3, 3, 6] and routes.ends.dtype == torch.int32


def test_silu_is_known_whatever_class_transformers_makes_of_it():
    """It has kernels of its own, which "gelu" has not."""
    assert isinstance(experts().act_fn, SILU) and isinstance(experts(hidden_act="swish").act_fn, SILU)
    assert not isinstance(experts(hidden_act="gelu").act_fn, SILU)


def test_no_tokens_give_no_rows():
    empty = torch.zeros(0, 32), torch.zeros(0, 2, dtype=torch.long), torch.zeros(0, 2)
    assert grouped_experts(experts(), *empty).shape == (0, 32)


def test_function_transforms_give_the_gradient_of_each_row():
    model, rows = ours(), torch.randint(3, 97, (2, 1, 8))
    parameters = dict(model.named_parameters())

    def loss(parameters, ids):
        return functional_call(model, parameters, (ids,), {"labels": ids, "use_cache": False}).loss

    each = vmap(grad(loss), (None, 0))(parameters, rows)
    for row in range(2):
        alone = grad(loss)(parameters, rows[row])
        assert_close({name: value[row] for name, value in each.items()}, alone)


def test_gradients_by_finite_differences():
    module = experts(hidden_size=4, num_attention_heads=1, intermediate_size=2, num_experts=3).double()
    x, (chosen, weights) = torch.randn(5, 4, dtype=torch.double), routed(5, 3, 2)
    x.requires_grad_()
    weights = weights.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, weights: grouped_experts(module, x, chosen, weights), (x, weights))


def test_autocast_takes_the_products_in_its_dtype():
    """As it does for linear layers: operands rounded to bf16, which the products of exact bf16 operands show."""
    module = experts()
    x, (chosen, weights) = torch.randn(11, 32), routed(11, 8, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = grouped_experts(module, x, chosen, weights)
    exact = grouped_experts(module, x, chosen, weights)
    assert mixed.dtype == torch.float32
    assert_close(mixed, exact, 0.1)
    assert not torch.equal(mixed, exact)
    assert torch.equal(mixed, grouped_experts(module.bfloat16(), x.bfloat16(), chosen, weights.bfloat16()).float())


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("back_end", ["eager", "olmoe_grouped", "grouped_mm", "batched_mm"])
def test_back_ends_agree_in_loss_and_gradients(back_end, attention):
    _, oracle = pair(num_key_value_heads=2, experts_implementation="eager", attn_implementation="eager")
    options = {"experts_implementation": back_end, "attn_implementation": attention}
    other = OlmoeForCausalLM(OlmoeConfig(**SMALL, num_key_value_heads=2, **options))
    other.load_state_dict(oracle.state_dict())
    ids = torch.randint(3, 97, (2, 20))
    mask = torch.ones_like(ids)
    mask[1, 13:] = 0
    losses = [model(ids, attention_mask=mask, labels=ids).loss for model in (oracle, other)]
    for loss in losses:
        loss.backward()
    assert_close(losses[1], losses[0])
    gradients = [{name: value.grad for name, value in model.named_parameters()} for model in (oracle, other)]
    assert_close(gradients[1], gradients[0])


def test_the_default_back_end_and_what_is_refused():
    assert ours().config._experts_implementation == "olmoe_grouped"
    with pytest.raises(ValueError, match=r"multiples of 4, and \(32, 5\) are not: use 'olmoe_grouped'"):
        OlmoeModel(OlmoeConfig(**{**SMALL, "intermediate_size": 5}, experts_implementation="grouped_mm"))
    with pytest.raises(ValueError, match="nonsense"):
        OlmoeModel(OlmoeConfig(**SMALL, experts_implementation="nonsense"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("intermediate", [24, 5])
def test_a_decoder_layer_compiles_without_graph_breaks(intermediate, dtype):
    model = ours(intermediate_size=intermediate).to(dtype)
    x = torch.randn(2, 12, 32, dtype=dtype, requires_grad=True)
    position_embeddings = model.model.rotary_emb(x, torch.arange(12).unsqueeze(0))
    layer = model.model.layers[0]
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")  # traces all, generates no code
    gradients = []
    for network in (layer, compiled):
        y, logits, _ = network(x, position_embeddings)
        gradients.append(torch.autograd.grad(y.square().mean() + logits.square().mean(), (x, *layer.parameters())))
    assert_close(gradients[1], gradients[0], 1e-5 if dtype == torch.float32 else 2e-2)


def test_the_whole_network_compiles_in_one_graph_packed_rows_included():
    model = ours()
    ids = torch.randint(3, 97, (2, 9))
    positions = torch.cat([torch.arange(5), torch.arange(4)]).repeat(2, 1)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for arguments in (
        {},
        {"position_ids": positions},
        {"position_ids": positions, "attention_mask": ids.new_ones(2, 9)},
    ):
        with torch.no_grad():
            expected = model(ids, use_cache=False, **arguments).logits
            assert_close(compiled(ids, use_cache=False, **arguments).logits, expected)
