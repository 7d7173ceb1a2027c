"""Evaluation is one mean over tokens or pairs, whatever the batches; its metrics say which way they are better."""

import math

import pytest
import torch
from support import REPOSITORY
from support.training_cases import FILES, Case

from olmoe_ft.recipe import RecipeError, load_recipe
from olmoe_ft.stages import STAGES
from olmoe_ft.training.arguments import training_arguments
from olmoe_ft.training.evaluation_loss import EvaluationBatches, Sums
from olmoe_ft.training.run_directory import RunDirectory

TIMES = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time", "num_tokens", "epoch")


def evaluation(stage: str, rows: int) -> str:
    return f"data.eval=[{{path: {REPOSITORY / f'data/skills/{FILES[stage]}.jsonl'}, max_rows: {rows}}}]"


def metrics_of(trainer) -> dict[str, float]:
    found = {name.removeprefix("eval_"): value for name, value in trainer.evaluate().items()}
    return {name: value for name, value in found.items() if name not in TIMES}


def by_row(trainer) -> dict[str, float]:
    """Straight from the logits of one row at a time: SFT.

    A token that is learned is predicted from all before it; the first of a row is not. Of those tokens: the mean
    negative log-probability, the mean entropy of the prediction, how often the likeliest token is the right one.
    """
    losses, entropies, right = [], [], []
    for row in trainer.eval_dataset:
        with torch.no_grad():
            logits = trainer.model(torch.tensor([row["input_ids"]])).logits[0, :-1].double()
        labels = torch.tensor(row["labels"])[1:]
        log_probabilities = logits.log_softmax(-1)
        for place in (labels != -100).nonzero().flatten().tolist():
            one = log_probabilities[place]
            losses.append(-one[labels[place]].item())
            entropies.append(-(one.exp() * one).sum().item())
            right.append(float(one.argmax() == labels[place]))
    loss = sum(losses) / len(losses)
    return {
        "loss": loss,
        "perplexity": math.exp(loss),
        "entropy": sum(entropies) / len(entropies),
        "mean_token_accuracy": sum(right) / len(right),
    }


@pytest.mark.parametrize("size", [1, 4, 24])
@pytest.mark.parametrize("packing", [False, True])
def test_sft_is_the_mean_of_all_tokens(make_trainer, size, packing):
    """23 rows of mixed length: a mean of batches would be another number for every size."""
    trainer = make_trainer(
        Case(), evaluation("sft", 23), f"training.per_device_eval_batch_size={size}", f"training.packing={packing}"
    )
    found = metrics_of(trainer)
    if packing:  # the rows as they are, of which the packs are made
        plain = make_trainer(Case(), evaluation("sft", 23), "name=plain")
        trainer.eval_dataset = plain.eval_dataset
        assert len(plain.eval_dataset) == 23
    expected = by_row(trainer)
    assert found.keys() == expected.keys() == STAGES["sft"].metrics.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize("option", ["loss_type=dft", "label_smoothing_factor=0.3"])
def test_perplexity_is_that_of_the_tokens_whatever_is_optimised(make_trainer, option):
    found = metrics_of(make_trainer(Case(), evaluation("sft", 23), f"training.{option}"))
    trainer = make_trainer(Case(), evaluation("sft", 23), f"training.{option}", "name=again")
    expected = by_row(trainer)
    assert found["perplexity"] == pytest.approx(expected["perplexity"], rel=1e-5)
    assert found["loss"] != pytest.approx(expected["loss"], rel=1e-3)


@pytest.mark.parametrize("loss", [("sigmoid", "sft"), ("ipo",)])
def test_dpo_is_the_mean_of_all_pairs(make_trainer, loss):
    """What TRL says of all 23 pairs in one batch, and rewards pair by pair, whatever the batches."""
    losses = (
        f"training.loss_type=[{', '.join(loss)}]",
        f"training.loss_weights={[1.0, 2.0][: len(loss)]}",
        "training.dataloader_drop_last=true",  # is about training
    )
    found = {
        size: metrics_of(
            make_trainer(
                Case("dpo", rows=2), evaluation("dpo", 23), *losses, f"training.per_device_eval_batch_size={size}"
            )
        )
        for size in (23, 1, 5)
    }
    assert found[23].keys() == STAGES["dpo"].metrics.keys()
    for size in (1, 5):
        for name, value in found[23].items():
            assert found[size][name] == pytest.approx(value, rel=2e-5, abs=2e-6), (size, name)
    trainer = make_trainer(Case("dpo"), evaluation("dpo", 23), *losses)
    batch = trainer.data_collator(list(trainer.eval_dataset))
    trainer.model.eval()
    with torch.no_grad():
        assert found[1]["loss"] == pytest.approx(trainer.compute_loss(trainer.model, batch).item(), rel=2e-5)


@pytest.mark.parametrize("option", ["loss_type=kto", "loss_type=apo_zero_unpaired", "precompute_ref_log_probs=true"])
def test_kto_is_the_mean_of_all_rows(make_trainer, option):
    """Of 23 rows in batches of 23, 1 and 5: some have no good row, or no bad one. The policy has moved away."""
    found = {}
    for size in (23, 1, 5):
        options = f"training.per_device_eval_batch_size={size}", f"training.{option}", f"name=by-{size}"
        trainer = make_trainer(Case("kto"), evaluation("kto", 23), *options)
        with torch.no_grad():
            trainer.model.lm_head.weight.mul_(0.7)
        found[size] = metrics_of(trainer)
    assert found[23].keys() == STAGES["kto"].metrics.keys() - ({"kl"} if "apo" in option else set())
    assert found[23]["rewards/margins"] != 0 and found[23].get("kl", 1) > 0
    for size in (1, 5):
        for name, value in found[23].items():
            assert found[size][name] == pytest.approx(value, rel=2e-5, abs=2e-6), (size, name)


@pytest.mark.parametrize(("rows", "size", "processes"), [(5, 2, 2), (1, 8, 4), (24, 4, 1), (23, 24, 2), (7, 1, 3)])
def test_every_row_is_counted_once(rows, size, processes):
    shares = [EvaluationBatches(rows, size, process, processes) for process in range(processes)]
    assert len({len(share) for share in shares}) == 1, "ZeRO-3 needs every process in every batch"
    counted = [row for share in shares for batch in list(share)[: share.counted] for row in batch]
    assert sorted(counted) == list(range(rows))
    assert all(batch and len(batch) <= size for share in shares for batch in share)


def test_sums_by_hand():
    """Two tokens of loss 1 and six of loss 3: (2 + 18) / 8 = 2.5. A third batch fills up and is not counted."""

    class One:
        device = "cpu"

        @staticmethod
        def reduce(totals):
            return totals

    sums = Sums(2)
    for value, count in ((1.0, 2), (3.0, 6), (math.nan, 4)):
        sums.add({("loss", "tokens"): value}, {"tokens": count})
    assert sums.means(One()) == {"loss": 2.5}


@pytest.mark.parametrize(
    ("stage", "metric", "greater"),
    [
        ("sft", "eval_perplexity", False),
        ("sft", "loss", False),
        ("sft", "mean_token_accuracy", True),
        ("dpo", "eval_rewards/rejected", False),
        ("dpo", "rewards/margins", True),
        ("kto", "rewards/chosen", True),
    ],
)
def test_the_best_is_the_best(tmp_path, monkeypatch, stage, metric, greater):
    recipe = load_recipe(
        f"recipes/tiny/{stage}.yaml",
        [evaluation(stage, 8), "training.eval_strategy=steps", f"training.metric_for_best_model={metric}"],
    )
    monkeypatch.chdir(tmp_path)
    assert training_arguments(recipe, RunDirectory(recipe)).greater_is_better is greater


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"metric_for_best_model": "accuracy"}, "allowed in stage sft: loss, perplexity, mean_token_accuracy, entropy"),
        ({"metric_for_best_model": "eval_perplexty"}, "did you mean `perplexity`?"),
        ({"metric_for_best_model": "entropy"}, "set `greater_is_better` too"),
        ({"metric_for_best_model": "loss", "greater_is_better": "true"}, "of loss, smaller is better; remove it"),
        (
            {"metric_for_best_model": "mean_token_accuracy", "lr_scheduler_type": "reduce_lr_on_plateau"},
            "set `mode: max`",
        ),
        ({"greater_is_better": "false"}, "without metric_for_best_model; set that too"),
    ],
)
def test_an_unknown_metric_is_refused(given, said):
    overrides = [f"training.{name}={value}" for name, value in given.items()]
    with pytest.raises(RecipeError, match="training.*") as error:
        load_recipe("recipes/tiny/sft.yaml", [evaluation("sft", 8), "training.eval_strategy=steps", *overrides])
    assert said in str(error.value)
