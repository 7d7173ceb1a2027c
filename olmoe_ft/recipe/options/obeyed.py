"""The fields that are obeyed in every stage, and what each does; the stages have their own (`Stage.options`)."""

STEPS = "the plan counts the same steps"
OPTIMIZER = "the optimizer that transformers' Trainer builds"
EVERY_RECORD = "when a record is written to metrics.jsonl and W&B"
DDP = "an argument of torch's DistributedDataParallel, used with several processes and no DeepSpeed"

OBEYED = {
    # how long, how much
    "per_device_train_batch_size": f"rows, pairs or packs of a micro-batch on each device; {STEPS}",
    "gradient_accumulation_steps": f"micro-batches of an optimizer step on each device; {STEPS}",
    "num_train_epochs": f"passes over the rows; ignored if `max_steps` is given; {STEPS}",
    "max_steps": f"optimizer steps; with -1, the default, `num_train_epochs` decides; {STEPS}",
    # optimizer and schedule
    "learning_rate": OPTIMIZER,
    "lr_scheduler_type": "the learning rate of each step; in every record as `learning_rate`",
    "lr_scheduler_kwargs": "arguments of the schedule; checked against those that its function takes",
    "warmup_steps": "steps in which the learning rate grows; below 1, a share of all steps; not with `constant`",
    "optim": f"{OPTIMIZER}; bf16 weights without DeepSpeed are trained by olmoe_ft's own AdamW (docs/optimizer.md)",
    "optim_args": "arguments of the optimizer, as a text: `momentum=0.9, nesterov=true`",
    "weight_decay": "weight decay in the optimizer; norms and biases have none",
    "adam_beta1": OPTIMIZER,
    "adam_beta2": OPTIMIZER,
    "adam_epsilon": OPTIMIZER,
    "max_grad_norm": "gradients are clipped to this norm before the step; 0 clips nothing",
    "label_smoothing_factor": "label smoothing in the loss of stage sft with `loss_type: nll`, in a second forward "
    "pass",
    "neftune_noise_alpha": "noise on the embeddings of training batches (not in evaluation)",
    # arithmetic and memory
    "bf16": "`model.dtype` sets it; a value that contradicts it is refused",
    "tf32": "TF32 in torch's fp32 matrix products; needs a GPU, an A100 or newer",
    "activation_checkpointing": "the new name of `gradient_checkpointing`",
    "activation_checkpointing_kwargs": "`use_reentrant` and other arguments of torch.utils.checkpoint",
    "gradient_checkpointing": "layers are recomputed in the backward pass; on by default",
    "gradient_checkpointing_kwargs": "`use_reentrant` and other arguments of torch.utils.checkpoint",
    "activation_offloading": "activations are kept in the host's memory until the backward pass; needs a GPU",
    "torch_compile": "accelerate compiles the network",
    "torch_compile_backend": "the compiler back end; needs `torch_compile: true`",
    "torch_compile_mode": "what the compiler optimises for; needs `torch_compile: true`",
    "torch_empty_cache_steps": "every so many steps Trainer frees the device's cached memory",
    # records
    "logging_strategy": EVERY_RECORD,
    "logging_steps": f"{EVERY_RECORD}; below 1, a share of all steps",
    "logging_first_step": "write a record of step 1 too",
    "log_level": "how much transformers prints in the main process",
    "log_level_replica": "how much transformers prints in the other processes",
    "log_on_each_node": "whether `log_level` applies on the first process of every machine",
    "include_num_input_tokens_seen": "`num_input_tokens_seen` in every record, and in the state of checkpoints",
    # evaluation
    "eval_strategy": "when rows of `data.eval` are evaluated, besides at the end",
    "eval_steps": "steps between evaluations; below 1, a share of all steps; by default `logging_steps`",
    "eval_delay": "steps, or epochs with `eval_strategy: epoch`, before the first evaluation",
    "eval_on_start": "evaluate once before the first step",
    "per_device_eval_batch_size": "rows, pairs or packs that each device evaluates at once",
    # checkpoints
    "save_strategy": "when a checkpoint is written to runs/<name>/checkpoints/",
    "save_steps": "steps between checkpoints; below 1, a share of all steps",
    "save_total_limit": "how many checkpoints are kept",
    "load_best_model_at_end": "`final/` is the best checkpoint instead of the last weights",
    "metric_for_best_model": "what `load_best_model_at_end`, `save_strategy: best` and some schedules compare",
    "greater_is_better": "whether a greater value of that metric is better",
    # random numbers
    "seed": "random numbers for adapters, dropout, the order of the rows, and the shares of sources",
    "data_seed": "random numbers for the order of the rows, instead of `seed`",
    "full_determinism": "torch uses only deterministic algorithms, which can be slower",
    # rows
    "max_length": "rows are cut to this many tokens when they are read; null cuts none",
    "shuffle_dataset": "rows are shuffled once before they are packed and drawn",
    "packing": "rows are packed end to end into `max_length` tokens; attention keeps them apart",
    "eval_packing": "the same for the rows of `data.eval`; by default the same as `packing`",
    "pad_to_multiple_of": "stage sft: a batch is padded to a multiple of this many tokens",
    "train_sampling_strategy": "the order of the rows; `group_by_length` sorts within a step",
    "dataset_num_proc": "processes that tokenize rows",
    "dataloader_drop_last": "the last micro-batch of an epoch is left out if it is smaller",
    "dataloader_num_workers": "processes that put batches together",
    "dataloader_pin_memory": "batches in pinned memory, which copies to a GPU faster; on by default if there is a GPU",
    "dataloader_persistent_workers": "workers are kept from one epoch to the next; needs `dataloader_num_workers`",
    "dataloader_prefetch_factor": "batches that each worker prepares ahead; needs `dataloader_num_workers`",
    "dataloader_multiprocessing_context": "how workers are started; needs `dataloader_num_workers`",
    # several processes
    "ddp_bucket_cap_mb": DDP,
    "ddp_broadcast_buffers": DDP,
    "ddp_static_graph": DDP,
    "ddp_timeout": "seconds that processes wait for one that hangs (600); then the launch ends",
}
