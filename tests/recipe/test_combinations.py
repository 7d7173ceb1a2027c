"""What options say about each other: each pair is refused with one sentence, and what is right is let through."""

import pytest

from olmoe_ft.recipe import RecipeError, load_recipe
from olmoe_ft.recipe.options.schedules import arguments_of

EVAL = "data.eval=[{path: e.jsonl}]"
STEPS = [EVAL, "eval_strategy=steps", "eval_steps=2"]
LORA = "lora={r: 8, alpha: 16, attention: true, experts: true}"
FLOAT = "model.dtype=float32"


def overrides(options: list[str]) -> list[str]:
    return [one if one.startswith(("data.", "lora=", "lora.", "model.")) else f"training.{one}" for one in options]


def schedule(name: str, arguments: str = "", *more: str) -> list[str]:
    given = [f"lr_scheduler_kwargs={{{arguments}}}"] if arguments else []
    return [f"lr_scheduler_type={name}", *given, *more]


BOTH = [
    # numbers
    (["max_steps=0"], "found 0; it must be at least 1; remove it to train for `num_train_epochs`"),
    (["max_steps=-2"], "found -2; it must be at least 1"),
    (["num_train_epochs=0"], "training.num_train_epochs: found 0; it must be above 0"),
    (["num_train_epochs=-1"], "it must be above 0"),
    (["logging_steps=0"], "training.logging_steps: found 0; it must be above 0"),
    (["logging_steps=1.5"], "a whole number of steps, or a share of all steps below 1"),
    (["save_steps=2.5"], "a whole number of steps"),
    (["save_steps=-1"], "it must be above 0"),
    (["warmup_steps=1.5"], "a whole number of steps"),
    (["warmup_steps=-0.1"], "it must be at least 0"),
    (["save_total_limit=0"], "it must be at least 1"),
    (["adam_beta1=1"], "training.adam_beta1: found 1; it must be below 1"),
    (["adam_epsilon=0"], "it must be above 0"),
    (["seed=4294967296"], "it must be at most 4294967295"),
    (["data_seed=-1"], "it must be at least 0"),
    (["label_smoothing_factor=1"], "it must be below 1"),
    (["torch_empty_cache_steps=0"], "it must be at least 1"),
    (["dataloader_num_workers=-1"], "it must be at least 0"),
    ([EVAL, "eval_strategy=steps", "eval_steps=0"], "it must be above 0"),
    ([EVAL, "eval_strategy=steps", "eval_delay=-1"], "it must be at least 0"),
    # schedules
    (schedule("cosine_with_min_lr"), "found neither min_lr nor min_lr_rate; cosine_with_min_lr needs one of them"),
    (schedule("cosine_with_min_lr", "min_lr: 1e-6, min_lr_rate: 0.1"), "found both min_lr and min_lr_rate"),
    (
        schedule("cosine_with_min_lr", "min_lr: 1.0"),
        "lr_scheduler_kwargs.min_lr: found 1.0; it must be below learning_rate (2e-05)",
    ),
    (schedule("cosine_with_min_lr", "min_lr_rate: 2"), "it is a share of learning_rate; allowed: at most 1"),
    (schedule("cosine_warmup_with_min_lr"), "found neither min_lr nor min_lr_rate"),
    (schedule("polynomial", "lr_edn: 0"), "the schedule polynomial has no such argument (did you mean `lr_end`?)"),
    (schedule("polynomial", "lr_end: 1e-4"), "found 0.0001; it must be below learning_rate"),
    (
        schedule("polynomial", "", "learning_rate=1e-7"),
        "the default of the schedule polynomial is 1e-07; it must be below learning_rate",
    ),
    (schedule("polynomial", "power: high"), 'lr_scheduler_kwargs.power: found "high"; allowed: float'),
    (schedule("inverse_sqrt", "timescale: 1.5"), "found 1.5; allowed: int | None"),
    (schedule("warmup_stable_decay"), "the schedule warmup_stable_decay needs num_decay_steps, which is missing"),
    (schedule("warmup_stable_decay", "num_decay_steps: 2, decay_type: x"), "allowed: linear, cosine, 1-sqrt"),
    (
        schedule("warmup_stable_decay", "num_decay_steps: 9", "max_steps=10", "warmup_steps=2"),
        "it must be at most max_steps (10)",
    ),
    (schedule("linear", "num_cycles: 2"), "the schedule linear has no such argument; it takes none, so remove it"),
    (schedule("constant_with_warmup", "min_lr: 0"), "it takes none, so remove it"),
    (
        schedule("constant", "", "warmup_steps=5"),
        "with lr_scheduler_type constant, which has no warm-up; set it to 0, or",
    ),
    (schedule("reduce_lr_on_plateau"), "which needs evaluations; set `eval_strategy` and `data.eval`"),
    (schedule("greedy", "min_lr: 1e-9"), "which needs evaluations"),
    ([*schedule("reduce_lr_on_plateau", "factor: 1.0"), *STEPS], "factor: found 1.0; it must be above 0 and below 1"),
    ([*schedule("reduce_lr_on_plateau", "mode: best"), *STEPS], 'mode: found "best"; allowed: min, max'),
    ([*schedule("reduce_lr_on_plateau", "", "warmup_steps=2"), *STEPS], "which has no warm-up; set it to 0"),
    ([*schedule("greedy"), *STEPS], "lr_scheduler_kwargs.min_lr: the default of the schedule greedy is 0.001; it"),
    (schedule("[cosine]"), 'found ["cosine"]; allowed: linear'),
    (["lr_scheduler_kwargs=min_lr"], 'found "min_lr"; allowed: a section'),
    # optimizers
    (["optim=lomo", FLOAT], "changes weights during the backward pass"),
    (["optim=adalomo", FLOAT], "changes weights during the backward pass"),
    (["optim=galore_adamw", FLOAT], "supports only plain linear layers and would skip the stacked experts"),
    (["optim=apollo_adamw_layerwise", FLOAT], "supports only plain linear layers"),
    (["optim=schedule_free_adamw", FLOAT], "keeps two sets of weights"),
    (["optim_target_modules=all-linear"], "only GaLore and APOLLO use it"),
    (["optim_args='momentum=0.9'"], "the optimizer adamw_torch_fused takes no arguments; remove it"),
    (["optim=adafactor", "optim_args='scale_parameter=true'", FLOAT], "the optimizer adafactor takes no arguments"),
    (
        ["optim=sgd", "optim_args=momentum", FLOAT],
        "write `momentum=…`, with commas between several; allowed: momentum, dampening",
    ),
    (
        ["optim=sgd", "optim_args='momentun=0.9'", FLOAT],
        "sgd does not take (did you mean `momentum`?); allowed: momentum",
    ),
    (["optim=sgd", "optim_args='momentum=big'", FLOAT], "found momentum=big; allowed: a number"),
    (["optim=sgd", "optim_args='nesterov=true'", FLOAT], "found nesterov=true without a momentum"),
    # evaluation and checkpoints
    (["eval_strategy=steps"], 'training.eval_strategy: found "steps" without rows to evaluate; set `data.eval`'),
    (["eval_steps=5"], "training.eval_steps: found 5 without rows to evaluate"),
    (["eval_on_start=true"], "without rows to evaluate"),
    (["per_device_eval_batch_size=2"], "without rows to evaluate"),
    (["load_best_model_at_end=true"], "found true without evaluations"),
    (
        [EVAL, "eval_strategy=epoch", "load_best_model_at_end=true"],
        "save_strategy steps and eval_strategy epoch; choose the same",
    ),
    ([*STEPS, "save_steps=3", "load_best_model_at_end=true"], "save_steps 3, which is not a multiple of eval_steps 2"),
    ([*STEPS, "save_steps=0.5", "load_best_model_at_end=true"], "give both in steps"),
    (["save_strategy=best"], "found best, which needs evaluations"),
    ([*STEPS, "save_strategy=best"], "found best without `metric_for_best_model`; set that too, for example"),
    # arithmetic, checkpointing, workers
    (["bf16=false"], "training.bf16: found false with model.dtype bfloat16, which decides the precision; remove it"),
    (["bf16=true", FLOAT], "found true with model.dtype float32"),
    (["fp16=true"], "the network trains in float32 or bfloat16"),
    (["bf16_full_eval=true"], "evaluation would differ from training"),
    (["torch_compile_backend=inductor"], "without `torch_compile: true`; add it, or remove this"),
    (["torch_compile=true", "torch_compile_mode=fast"], "allowed: default, reduce-overhead, max-autotune"),
    (["torch_compile=true", "torch_compile_backend=magic"], "allowed: inductor"),
    (
        ["activation_checkpointing=true", "gradient_checkpointing=false"],
        "found true and gradient_checkpointing (its old name) false",
    ),
    (["gradient_checkpointing_kwargs={use_rentrant: true}"], "unknown key (did you mean `use_reentrant`?)"),
    (["gradient_checkpointing_kwargs={use_reentrant: 'yes'}"], 'found "yes"; allowed: true'),
    (
        ["gradient_checkpointing_kwargs={use_reentrant: true, early_stop: true}"],
        "unknown key; allowed with use_reentrant: true: use_reentrant, preserve_rng_state",
    ),
    (["gradient_checkpointing_kwargs=true"], "found true; allowed: a section"),
    (["dataloader_prefetch_factor=2"], "found 2 without workers; set `dataloader_num_workers`, or remove it"),
    (["dataloader_persistent_workers=true"], "without workers"),
    (["dataloader_multiprocessing_context=spawn"], "without workers"),
    (["dataloader_in_order=false"], "so no run could be repeated"),
    (["log_level=loud"], "allowed: debug, info"),
    (["include_num_input_tokens_seen=some"], "allowed: all, non_padding, no"),
    (
        ["model.attn_implementation=flash_attention_2", FLOAT],
        "which does not support float32; choose sdpa, or bfloat16",
    ),
    # refused in any combination
    (["fsdp=full_shard"], "FSDP is not supported; launch with configs/accelerate/zero2.yaml"),
    (["parallelism_config={cp_size: 2}"], "attention and losses here need whole rows"),
    (["accelerator_config={split_batches: true}"], "the pipeline decides how batches are split"),
    (["auto_find_batch_size=true"], "`olmoe-ft plan` says what fits"),
    (["average_tokens_across_devices=false"], "the weight of a token would depend on its process"),
    (["push_to_hub=true"], "runs stay on disk"),
    (["hub_model_id=a/b"], "runs stay on disk"),
    (["include_for_metrics=[inputs]"], "keeps only sums of losses, no predictions"),
    (["label_names=[labels]"], "set `data.learn` instead"),
    (["save_only_model=true"], "a stopped run could not continue"),
    (["ignore_data_skip=true"], "would see some rows twice"),
    (["debug=underflow_overflow"], "a number that is not finite stops the run"),
    (["logging_nan_inf_filter=true"], "a number that is not finite stops the run"),
    (["use_cpu=true"], "it follows from the machine"),
    (["use_liger_kernel=true"], "Liger replaces layers"),
]
PADDED = (["padding_free=true"], "set `packing` instead")
SFT = [
    PADDED,
    (
        ["packing=true", "max_length=null"],
        "found null with training.packing, which packs rows to this length; give a number",
    ),
    ([EVAL, "eval_packing=true"], "found null with training.eval_packing"),
    (["eval_packing=true", "max_length=64"], "without rows to evaluate"),
    (["packing_strategy=bfd_split"], "bfd_split would do the same as bfd"),
    (["loss_type=chunked_nll"], "an old name; set it to nll"),
    (["loss_type=dft", "label_smoothing_factor=0.1"], "found with loss_type dft, which does not use it"),
    (["pad_to_multiple_of=some"], "allowed: a whole number, auto"),
    (["pad_to_multiple_of=0"], "it must be at least 1"),
]
DPO = [
    PADDED,
    (["label_smoothing_factor=0.1"], "DPO has no labels to smooth; set `label_smoothing`"),
    (["pad_to_multiple_of=8"], "rows are laid end to end without padding"),
    (["loss_type=[]"], "found an empty list; give at least one loss"),
    (["loss_type=[sigmoid, sfd]"], 'found "sfd" (did you mean `sft`?); allowed: sigmoid'),
    (["loss_weights=[1.0, 2.0]"], "found 2 for 1 losses (sigmoid); give one for each"),
    (["loss_type=[sigmoid, sft]", "loss_weights=[1.0]"], "found 1 for 2 losses (sigmoid, sft)"),
    (["loss_weights=2"], "found 2; allowed: a list of numbers"),
    (["loss_type=[sft]", "beta=0.2"], "with loss_type sft, which does not use it"),
    (["beta=0"], "it must be above 0"),
    (
        ["label_smoothing=0.1"],
        "with loss_type sigmoid, which does not use it; remove it, or choose one of the losses exo_pair, robust",
    ),
    (["loss_type=[exo_pair]"], "the loss exo_pair needs a value above 0"),
    (["loss_type=[robust]", "label_smoothing=0.5"], "allowed with the loss robust: below 0.5"),
    (["discopop_tau=0.1"], "with loss_type sigmoid, which does not use it; remove it"),
    (["f_divergence_type=kl"], 'found "kl"; allowed: reverse_kl, forward_kl'),
    (["f_divergence_type=forward_kl", "loss_type=[sigmoid, nca_pair]"], "which does not work with the loss nca_pair"),
    (["f_alpha_divergence_coef=0.7"], "which f_divergence_type reverse_kl does not use"),
    (["use_weighting=true", "loss_type=[sigmoid, sft]"], "TRL cannot weight sft pair by pair; choose other losses"),
    (["use_weighting=true", "loss_type=[aot, sft]"], "TRL cannot weight aot, sft pair by pair"),
    (["use_weighting=true", "loss_type=[hinge]"], "TRL cannot weight hinge pair by pair"),
    (["loss_type=[aot]", *STEPS], "the evaluation loss would depend on the batch size"),
    (["ld_alpha=1.5"], "it must be at most 1"),
    (
        ["sync_ref_model=true", LORA],
        "found true with `lora`, where the reference is the policy with its adapters off",
    ),
    (["sync_ref_model=true", "precompute_ref_log_probs=true"], "which needs a fixed reference; remove one of them"),
    (["ref_model_sync_steps=5"], "found 5 without `sync_ref_model: true`"),
    (["ref_model_mixup_alpha=0.5"], "without `sync_ref_model: true`"),
    (["precompute_ref_batch_size=4"], "without `precompute_ref_log_probs: true`"),
    (["neftune_noise_alpha=5", LORA], "would get noise too"),
    (["gradient_checkpointing_kwargs={selective: true}"], "unknown key; allowed: use_reentrant"),
]
KTO = [
    (["loss_type=kot"], 'found "kot" (did you mean `kto`?); allowed: kto, apo_zero_unpaired'),
    (["loss_type=[kto]"], 'training.loss_type: found ["kto"]; allowed: a text'),
    (["beta=0"], "training.beta: found 0; it must be above 0"),
    (["desirable_weight=0"], "training.desirable_weight: found 0; it must be above 0"),
    (["undesirable_weight=-1"], "training.undesirable_weight: found -1; it must be above 0"),
    (["desirable_weight=high"], 'found "high"; allowed: a number'),
    (
        ["per_device_train_batch_size=1"],
        "found 1; the loss kto compares each row with an estimate that is made of several, so",
    ),
    (["train_sampling_strategy=group_by_length"], "if taken in order (the mixture is shuffled once, by the seed)"),
    (["label_smoothing_factor=0.1"], "KTO has no labels of tokens to smooth; remove it"),
    (["loss_weights=[1.0]"], "is a field of DPOConfig (stage dpo) only; this stage is kto: remove it"),
    (["packing=true"], "is a field of SFTConfig (stage sft) only; this stage is kto: remove it"),
    (["pad_to_multiple_of=8"], "rows are laid end to end without padding"),
    (["sync_ref_model=true", LORA], "with `lora`, where the reference is the policy with its adapters off"),
    (["precompute_ref_batch_size=4"], "without `precompute_ref_log_probs: true`"),
    (["data.learn=last_answer"], 'data.learn: found "last_answer"; stage kto learns only from `completion`; remove it'),
    (["data.turn_marks=obey"], 'data.turn_marks: found "obey"; stage kto learns only from `completion`; remove it'),
]
WRONG = [
    (stage, *case) for stage, own in (("sft", SFT), ("dpo", DPO), ("kto", KTO)) for case in BOTH + own
]  # those of every stage, and a stage's own


@pytest.mark.parametrize(
    ("stage", "options", "said"), WRONG, ids=lambda part: "+".join(part) if isinstance(part, list) else ""
)
def test_what_does_not_go_together(good, stage, options, said):
    more = [f"stage={stage}", "training.learning_rate=2e-5"]
    with pytest.raises(RecipeError) as caught:
        load_recipe(good, [*more, *overrides(options)])
    assert len(caught.value.messages) == 1, caught.value.messages
    assert said in caught.value.messages[0]


RIGHT = [
    ("sft", schedule("cosine", "num_cycles: 1.5", "warmup_steps=5")),
    ("sft", schedule("cosine_with_min_lr", "min_lr_rate: 0.1")),
    ("sft", schedule("cosine_warmup_with_min_lr", "min_lr: 1e-6, warmup_lr_rate: 0.1")),
    ("sft", schedule("polynomial", "lr_end: 0.0, power: 2")),
    (
        "sft",
        schedule("warmup_stable_decay", "num_decay_steps: 3, min_lr_ratio: 0.1", "max_steps=10", "warmup_steps=0.1"),
    ),
    ("sft", schedule("constant", "", "warmup_steps=0")),
    (
        "sft",
        [
            *schedule("reduce_lr_on_plateau", "factor: 0.5, patience: 2, mode: max"),
            *STEPS,
            "metric_for_best_model=mean_token_accuracy",
        ],
    ),
    ("sft", [*schedule("greedy", "min_lr: 1e-6, smooth: true"), *STEPS]),
    ("sft", ["optim=sgd", "optim_args='momentum=0.9, nesterov=true'", FLOAT]),
    ("sft", ["optim=ademamix_8bit", "optim_args='beta3=0.99'", FLOAT]),
    ("sft", [*STEPS, "save_steps=4", "load_best_model_at_end=true", "per_device_eval_batch_size=2"]),
    ("sft", [*STEPS[:2], "eval_steps=0.1", "save_steps=0.2", "load_best_model_at_end=true"]),
    ("sft", [*STEPS, "save_strategy=best", "load_best_model_at_end=true", "metric_for_best_model=eval_loss"]),
    ("sft", ["save_strategy='no'", "save_steps=5", "save_total_limit=1"]),  # told, and let through
    ("sft", ["gradient_checkpointing=false", "gradient_checkpointing_kwargs={use_reentrant: false}"]),
    ("sft", ["gradient_checkpointing_kwargs={selective: true}", "label_smoothing_factor=0.1"]),
    ("sft", ["bf16=true", "push_to_hub=false", "fsdp=null", "do_train=true", "average_tokens_across_devices=true"]),
    ("sft", ["save_steps=0.5", "logging_steps=1", "warmup_steps=0.03", "max_steps=-1", "pad_to_multiple_of=8"]),
    ("sft", ["dataloader_num_workers=2", "dataloader_prefetch_factor=2", "include_num_input_tokens_seen=false"]),
    ("dpo", ["loss_type=sigmoid", "beta=0.2"]),
    ("dpo", ["loss_type=[sigmoid, sft]", "loss_weights=[1, 2.0]", "beta=0.2"]),
    ("dpo", ["loss_type=[aot]", "label_smoothing=0.1", "ld_alpha=0.5"]),
    ("dpo", ["f_divergence_type=alpha_divergence", "f_alpha_divergence_coef=0.7", "loss_type=[ipo]"]),
    ("dpo", ["sync_ref_model=true", "ref_model_sync_steps=5", "use_weighting=true"]),
    ("dpo", ["precompute_ref_log_probs=true", "precompute_ref_batch_size=4", "neftune_noise_alpha=5", LORA]),
    ("kto", ["loss_type=kto", "beta=0.2", "desirable_weight=0.01", "undesirable_weight=1.5"]),
    ("kto", ["loss_type=apo_zero_unpaired", "per_device_train_batch_size=1"]),
    ("kto", ["loss_type=apo_zero_unpaired", "train_sampling_strategy=group_by_length"]),
    ("kto", ["data.train.0.labels={'1': true, '-1': false}"]),
]


@pytest.mark.parametrize(
    ("stage", "options"), RIGHT, ids=lambda part: "+".join(part) if isinstance(part, list) else part
)
def test_what_goes_together(good, stage, options):
    load_recipe(good, [f"stage={stage}", *overrides(options)])


@pytest.mark.parametrize("name", ["linear", "constant", "reduce_lr_on_plateau", "greedy", "warmup_stable_decay"])
def test_the_arguments_of_a_schedule_are_those_of_its_function(name):
    """Whatever transformers' `get_scheduler` hands on by name."""
    import inspect

    import torch
    from transformers import optimization

    function = {
        "linear": optimization.get_linear_schedule_with_warmup,
        "constant": optimization.get_constant_schedule,
        "reduce_lr_on_plateau": torch.optim.lr_scheduler.ReduceLROnPlateau.__init__,
        "greedy": optimization.GreedyLR.__init__,
        "warmup_stable_decay": optimization.get_wsd_schedule,
    }[name]
    given = {"self", "optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
    assert set(arguments_of(name)) == set(inspect.signature(function).parameters) - given


def test_they_are_all_told_together(good):
    wrong = [
        "max_steps=0",
        "optim=lomo",
        "eval_strategy=steps",
        "tf33=true",
        "dataloader_prefetch_factor=2",
        "bf16=false",
    ]
    with pytest.raises(RecipeError) as caught:
        load_recipe(good, overrides(wrong))
    assert len(caught.value.messages) == len(wrong)


def test_what_follows_from_a_wrong_option_is_not_told_beside_it(good):
    wrong = ["stage=dpo", "training.loss_type=[sigmiod, sft]", "training.loss_weights=[1.0]"]
    with pytest.raises(RecipeError) as caught:
        load_recipe(good, [*wrong, "training.precompute_ref_batch_size=2"])
    keys = [message.split(": ")[1] for message in caught.value.messages]
    assert keys == ["training.loss_type", "training.precompute_ref_batch_size"]
