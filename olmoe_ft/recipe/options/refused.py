"""The fields that a recipe cannot set, with the reason and what to use instead."""

ASSISTANT_ONLY = "only the assistant's turns are ever learned; remove it"
NO_HUB = "runs stay on disk; upload runs/<name>/final when it is good"
NO_TRACKIO = "records go to Weights & Biases; set `tracking` instead"
NO_METRICS = "evaluation keeps only sums of losses, no predictions; remove it"
NO_FSDP = "FSDP is not supported; launch with configs/accelerate/zero2.yaml or zero3.yaml instead"
DTYPE = "the weights decide the precision; set `model.dtype` instead"

# Fields that follow from other sections or that the pipeline decides: a recipe cannot give a value.
SET = {
    "output_dir": "the run directory is runs/<name>/; set `name` instead",
    "run_name": "set `name` instead",
    "report_to": "set `tracking.wandb` instead",
    "router_aux_loss_coef": "set `router.load_balancing_coef` instead",
    "model_init_kwargs": "set `model.dtype` and `model.attn_implementation` instead",
    "chat_template_path": "the chat template is the tokenizer's; set `model.tokenizer` instead",
    "eos_token": "the end of a turn is the tokenizer's; set `model.tokenizer` instead",
    "pad_token": "the padding token is the tokenizer's; set `model.tokenizer` instead",
    "resume_from_checkpoint": "the same command continues by itself; remove it",
    "deepspeed": "choose a file of configs/accelerate/ at launch instead",
    "ddp_backend": "it follows from the device; remove it",
    "use_cpu": "it follows from the machine; launch with configs/accelerate/cpu.yaml instead",
    "local_rank": "the launcher sets it; remove it",
    "ddp_find_unused_parameters": "every trained weight has a gradient, so there is nothing to find; remove it",
    "completion_only_loss": ASSISTANT_ONLY,
    "assistant_only_loss": ASSISTANT_ONLY,
    "truncation_mode": "set `data.long_prompts` and `data.long_answers` instead",
    "dataset_text_field": "set `data.train.0.columns` instead, which renames the keys of rows",
    "dataset_kwargs": "the pipeline prepares the rows; set `data` instead",
    "remove_unused_columns": "the pipeline decides which columns a trainer sees; remove it",
    "disable_tqdm": "the pipeline prints its own progress; remove it",
    "logging_nan_inf_filter": "a number that is not finite stops the run; remove it",
}

# Fields that are accepted only with their default value.
REFUSED = {
    "push_to_hub": NO_HUB,
    "hub_token": "runs stay on disk and a recipe holds no secrets; remove it",
    "hub_model_id": NO_HUB,
    "hub_private_repo": NO_HUB,
    "hub_strategy": NO_HUB,
    "hub_always_push": NO_HUB,
    "hub_revision": NO_HUB,
    "trust_remote_code": "no code is loaded from the Hub; remove it",
    "use_liger_kernel": "Liger replaces layers of transformers' OLMoE, and the network here is another; remove it",
    "liger_kernel_config": "Liger replaces layers of transformers' OLMoE, and the network here is another; remove it",
    "use_cache": "training never caches keys and values, and the saved model has its cache on; remove it",
    "fp16": f"the network trains in float32 or bfloat16; {DTYPE}",
    "bf16_full_eval": f"evaluation would differ from training; {DTYPE}",
    "fp16_full_eval": f"evaluation would differ from training; {DTYPE}",
    "optim_target_modules": "only GaLore and APOLLO use it, which support plain linear layers and would skip the "
    "stacked experts; to save memory use `lora`, or an 8-bit `optim`",
    "auto_find_batch_size": "it would change the steps in the middle of a run; remove it: `olmoe-ft plan` says what "
    "fits",
    "average_tokens_across_devices": "with false, the weight of a token would depend on its process; set it to true",
    "project": "set `tracking.project` instead",
    "trackio_space_id": NO_TRACKIO,
    "trackio_bucket_id": NO_TRACKIO,
    "trackio_static_space_id": NO_TRACKIO,
    "eval_do_concat_batches": NO_METRICS,
    "eval_use_gather_object": NO_METRICS,
    "eval_accumulation_steps": NO_METRICS,
    "include_for_metrics": NO_METRICS,
    "batch_eval_metrics": NO_METRICS,
    "label_names": "the labels are those of the assistant's turns; set `data.learn` instead",
    "length_column_name": "lengths are counted from the tokens; remove it",
    "save_only_model": "checkpoints would lack the optimizer, so a stopped run could not continue; remove it "
    "(`final/` holds the model alone)",
    "save_on_each_node": "machines share the run directory, so they would all write the same files; remove it",
    "enable_jit_checkpoint": "each process would save by itself at a signal; remove it: on SIGTERM, SIGINT and SIGUSR1 "
    "all processes save together anyway",
    "ignore_data_skip": "a continued run would see some rows twice and others never; remove it",
    "restore_callback_states_from_checkpoint": "no callback here keeps a state in checkpoints; remove it",
    "accelerator_config": "the pipeline decides how batches are split across processes; remove it",
    "parallelism_config": "attention and losses here need whole rows, but would see only a shard; launch with "
    "configs/accelerate/zero2.yaml or zero3.yaml instead",
    "dataloader_in_order": "with false, the order of batches would depend on timing, so no run could be repeated; set "
    "it to true",
    "fsdp": NO_FSDP,
    "fsdp_config": NO_FSDP,
    "debug": "a number that is not finite stops the run, and the message names it; remove it",
    "skip_memory_metrics": "every record has `perf/peak_memory_gib`; set it to true",
    "padding_free": "set `packing` instead, which needs no padding; the prompt of a pair is computed only once anyway",
    "packing_strategy": "rows are cut to `max_length` before they are packed, so bfd_split would do the same as bfd, "
    "and "
    "wrapped would join rows; choose bfd",
}

# Fields that many recipes of other tools have and that change nothing: accepted, with a note to the user.
NO_EFFECT = {
    "do_train": "`olmoe-ft train` always trains",
    "do_eval": "rows of `data.eval` are evaluated at the end, and when `eval_strategy` says so",
    "do_predict": "`data.answers` generates answers, before and after training",
    "prediction_loss_only": "evaluation keeps only losses",
}
