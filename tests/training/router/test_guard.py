"""The run stops at step 1 where the router losses reach no router, and says why."""

import pytest
import wandb
import yaml
from support.networks import ours
from support.training_cases import Case, recipe_of, without_answers_at_first, write_start

from olmoe_ft import pipeline
from olmoe_ft.model import OlmoeConfig, OlmoeForCausalLM
from olmoe_ft.model.router import OlmoeTopKRouter
from olmoe_ft.recipe import RecipeError, load_recipe
from olmoe_ft.recipe.schema import Router
from olmoe_ft.training.router.guard import check_reach, moved_weights, reach_of_frozen_routers

MODES = ("none", "non_reentrant", "reentrant")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", ["full", "lora"])
@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_a_gradient_that_is_alive_passes(make_trainer, stage, form, mode):
    trainer = make_trainer(Case(stage, form, checkpointing=mode))
    trainer.train()
    assert trainer.state.global_step == 2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("overrides", [("lora.attention=false", "router.train=frozen"), ("router.train=lora",)])
def test_a_router_that_sees_no_trained_weight_is_not_waited_for(make_trainer, mode, overrides):
    """With adapters on experts alone the first router sees none; with adapters on routers all do."""
    trainer = make_trainer(Case(form="lora", checkpointing=mode), *overrides)
    trainer.train()
    assert trainer.state.global_step == 2


def detached_in_the_layer(monkeypatch, trainer):
    """The logits that leave the router are cut off, those that route are not: only the losses on them are dead."""
    forward = OlmoeTopKRouter.forward
    monkeypatch.setattr(
        OlmoeTopKRouter,
        "forward",
        lambda self, x: (lambda logits, *others: (logits.detach(), *others))(*forward(self, x)),
    )


def detached_by_a_hook(monkeypatch, trainer):
    def detach(module, args, outputs):
        if outputs.router_logits is not None:
            outputs.router_logits = tuple(logits.detach() for logits in outputs.router_logits)

    trainer.backbone.register_forward_hook(detach)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", [detached_in_the_layer, detached_by_a_hook])
def test_logits_that_lost_their_gradient_stop_the_run_at_step_1(make_trainer, monkeypatch, mode, fault):
    trainer = make_trainer(Case(checkpointing=mode))
    fault(monkeypatch, trainer)
    with pytest.raises(
        RecipeError, match="router.load_balancing_coef is 0.5 and .* router of any layer: its logits were"
    ):
        trainer.train()
    assert trainer.state.global_step == 0


def test_a_stopped_run_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_start(tmp_path)
    recipe = recipe_of(Case(), tmp_path) | {"tracking": {"wandb": "offline"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    detached_in_the_layer(monkeypatch, None)
    with pytest.raises(RecipeError, match="in the first step no gradient of the router losses"):
        pipeline.run(load_recipe("recipe.yaml"))
    assert not (tmp_path / "runs").exists() and wandb.run is None


def test_one_layer_is_enough_to_stop_and_is_named(make_trainer):
    trainer = make_trainer(Case())
    trainer.backbone.layers[1].register_forward_hook(lambda module, args, out: (out[0], out[1].detach(), out[2]))
    with pytest.raises(RecipeError, match="router of layer 1: its logits were detached"):
        trainer.train()


def test_a_first_step_without_a_token_that_counts_is_not_judged(make_trainer):
    """No answer, so no gradient and nothing to say of it; the next step has one, and is judged."""
    trainer = make_trainer(Case(), "router.tokens=completion")
    without_answers_at_first(trainer)
    trainer.train()
    assert trainer.state.global_step == 2
    trainer = make_trainer(Case(), "router.tokens=completion")
    without_answers_at_first(trainer)
    detached_by_a_hook(None, trainer)
    with pytest.raises(RecipeError, match="detached"):
        trainer.train()
    assert trainer.state.global_step == 1


def test_without_coefficients_nothing_is_asked_of_the_gradient(make_trainer):
    trainer = make_trainer(Case(coefficient=0.0))
    detached_by_a_hook(None, trainer)
    trainer.train()
    assert trainer.state.global_step == 2


def test_a_frozen_everything_stops_before_the_first_step(make_trainer):
    trainer = make_trainer(Case(), "router.train=frozen")
    for name, weight in trainer.model.named_parameters():
        weight.requires_grad_("lm_head" in name or "layers.1.mlp.experts" in name)
    with pytest.raises(RecipeError, match="no trained weight comes before a router"):
        check_reach(trainer.model, trainer.router)


def test_experts_that_all_work_on_every_token_need_no_balance():
    router = Router(load_balancing_coef=0.01, z_loss_coef=0.0, train="full")
    with pytest.raises(RecipeError, match="every token goes to all 8 experts"):
        check_reach(ours(num_experts=8, num_experts_per_tok=8), router)
    check_reach(ours(num_experts=8, num_experts_per_tok=7), router)


def test_routers_that_are_to_be_trained_and_are_not_stop_the_run(make_trainer):
    trainer = make_trainer(Case())
    trainer.model.model.layers.requires_grad_(False)
    with pytest.raises(RecipeError, match='router.train: found "full", but no router'):
        check_reach(trainer.model, trainer.router)


def test_what_the_losses_move_is_what_lies_before_a_router():
    """Hidden 8, intermediate 4, 2 experts, 2 layers, vocabulary 16, counted by hand:

    embeddings 16·8; a router 2·8; attention 4·8·8 and the norms of queries and keys 2·8; norms 2·8; the experts of
    layer 0 alone, 2·3·8·4.
    """
    sizes = {"vocab_size": 16, "hidden_size": 8, "intermediate_size": 4, "num_hidden_layers": 2}
    model = OlmoeForCausalLM(OlmoeConfig(**sizes, num_attention_heads=2, num_experts=2, num_experts_per_tok=1))
    expected = {"embeddings": 128, "routers": 2 * 16, "attention": 2 * (256 + 16), "norms": 2 * 16, "experts": 192}
    assert moved_weights(model) == expected


def test_frozen_routers_say_what_the_term_can_still_move(make_trainer):
    trainer = make_trainer(Case(form="lora"), "router.train=frozen", "router.z_loss_coef=0")
    sentence = reach_of_frozen_routers(trainer.model, trainer.router)
    # rank 2: four projections 32 -> 32 in 2 layers; the experts of layer 0: 8 x (2 factors of gate_up and of down)
    attention, experts = 2 * 4 * 2 * (32 + 32), 8 * 2 * ((32 + 32) + (16 + 32))
    assert sentence == (
        "the routers are frozen and router.load_balancing_coef is 0.5: the router losses still move what comes before "
        f"them, attention ({attention:,} weights), experts ({experts:,} weights)"
    )
    assert reach_of_frozen_routers(trainer.model, trainer.router.model_copy(update={"load_balancing_coef": 0})) is None
