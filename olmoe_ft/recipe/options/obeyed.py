"""The fields that are obeyed in every stage, and where each acts; the stages have their own (`Stage.options`)."""

STEPS = "olmoe_ft.training.steps counts the same steps"
OPTIMIZER = "the optimizer that transformers' Trainer builds"
EVERY_RECORD = "when a record is written to metrics.jsonl and W&B"
DDP = "torch's DistributedDataParallel, with several processes and no DeepSpeed"

OBEYED = {
    # how long, how much
    "per_device_train_batch_size": f"rows, pairs or packs of a micro-batch on each device; {STEPS}",
    "gradient_accumulation_steps": f"micro-batches of an optimizer step on each device; {STEPS}",
    "num_train_epochs": f"passes over the rows, unless `max_steps` is given, which then decides alone; {STEPS}",
    "max_steps": f"optimizer steps; -1, the default, leaves it to `num_train_epochs`; {STEPS}",
    # optimizer and schedule
    "learning_rate": OPTIMIZER,
    "lr_scheduler_type": "the learning rate of each step; in every record as `learning_rate`",
    "lr_scheduler_kwargs": "arguments of the schedule; which it takes is checked against its function",
    "warmup_steps": "steps with a growing learning rate; below 1 a share of all steps; not with `constant`",
    "optim": f"{OPTIMIZER}; bf16 weights without DeepSpeed are trained by olmoe_ft's own (docs/optimizer.md)",
    "optim_args": "arguments of an optimizer that takes some, as a text: `momentum=0.9, nesterov=true`",
    "weight_decay": "the parameter groups of the optimizer; norms and biases are left out",
    "adam_beta1": OPTIMIZER,
    "adam_beta2": OPTIMIZER,
    "adam_epsilon": OPTIMIZER,
    "max_grad_norm": "gradients are clipped to this norm before the step; 0 clips nothing",
    "label_smoothing_factor": "stage sft with `loss_type: nll`: the loss, in a second forward pass",
    "neftune_noise_alpha": "noise on the embeddings of training batches (not in evaluation)",
    # arithmetic and memory
    "bf16": "`model.dtype` sets it; a value that says something else is refused",
    "tf32": "torch's matrix products in fp32, on a GPU from an A100 on",
    "activation_checkpointing": "the new name of `gradient_checkpointing`, which does the same",
    "activation_checkpointing_kwargs": "`use_reentrant`, and others of torch.utils.checkpoint",
    "gradient_checkpointing": "layers are computed again in the backward pass; on by default",
    "gradient_checkpointing_kwargs": "`use_reentrant`, and others of torch.utils.checkpoint",
    "activation_offloading": "activations wait for the backward pass in the host's memory; on a GPU",
    "torch_compile": "accelerate compiles the network",
    "torch_compile_backend": "the compiler, beside `torch_compile: true`",
    "torch_compile_mode": "what the compiler aims at, beside `torch_compile: true`",
    "torch_empty_cache_steps": "steps between which Trainer gives cached memory of the device back",
    # records
    "logging_strategy": EVERY_RECORD,
    "logging_steps": f"{EVERY_RECORD}; below 1 a share of all steps",
    "logging_first_step": "a record of step 1 too",
    "log_level": "how much transformers prints in the main process",
    "log_level_replica": "how much transformers prints in the other processes",
    "log_on_each_node": "whether `log_level` holds on the first process of every machine",
    "include_num_input_tokens_seen": "`num_input_tokens_seen` in every record, and in the state of checkpoints",
    # evaluation
    "eval_strategy": "when rows of `data.eval` are evaluated, beside the end",
    "eval_steps": "steps between evaluations; below 1 a share of all steps; by default `logging_steps`",
    "eval_delay": "steps, or epochs with `eval_strategy: epoch`, before the first evaluation",
    "eval_on_start": "an evaluation before the first step",
    "per_device_eval_batch_size": "rows, pairs or packs that are evaluated at once on each device",
    # checkpoints
    "save_strategy": "when a checkpoint is written to runs/<name>/checkpoints/",
    "save_steps": "steps between checkpoints; below 1 a share of all steps",
    "save_total_limit": "how many checkpoints stay",
    "load_best_model_at_end": "`final/` is the best checkpoint instead of the last weights",
    "metric_for_best_model": "what `load_best_model_at_end`, `save_strategy: best` and some schedules compare",
    "greater_is_better": "in which direction they compare it",
    # chance
    "seed": "adapters, dropout, the order of the rows, shares of sources",
    "data_seed": "the order of the rows, instead of `seed`",
    "full_determinism": "torch uses deterministic algorithms only, which may be slower",
    # rows
    "max_length": "rows are cut to so many tokens when they are read; null cuts none",
    "shuffle_dataset": "rows are shuffled once before they are packed and drawn",
    "packing": "rows are laid end to end in packs of `max_length` tokens, kept apart by attention",
    "eval_packing": "the same for the rows of `data.eval`; by default as `packing`",
    "pad_to_multiple_of": "stage sft: a batch is padded to a multiple of so many tokens",
    "train_sampling_strategy": "the order of the rows; `group_by_length` sorts within a step",
    "dataset_num_proc": "processes that tokenize rows",
    "dataloader_drop_last": "the last micro-batch of an epoch is left out where it is smaller",
    "dataloader_num_workers": "processes that lay batches together",
    "dataloader_pin_memory": "batches in memory that a GPU copies faster; on by default where there is one",
    "dataloader_persistent_workers": "workers live over epochs; needs `dataloader_num_workers`",
    "dataloader_prefetch_factor": "batches that each worker prepares ahead; needs `dataloader_num_workers`",
    "dataloader_multiprocessing_context": "how workers are started; needs `dataloader_num_workers`",
    # several processes
    "ddp_bucket_cap_mb": DDP,
    "ddp_broadcast_buffers": DDP,
    "ddp_static_graph": DDP,
    "ddp_timeout": "seconds that a process may do nothing while others wait for it (600); then the launch ends",
}
