"""Keys of other tools, and of earlier versions of TRL and transformers, and what to write here instead.

They come from TRL, transformers, open-instruct, axolotl, LLaMA-Factory and torchtune, or are the plain word that users
try first. The most similar of our own names would mislead for most of them. Each text names our keys in full, so it is
true wherever the key was written.
"""

from typing import NamedTuple


class Group(NamedTuple):
    """Keys that share one answer."""

    text: str
    names: str
    """Separated by spaces."""


LENGTH, TEMPLATE, TARGETS = "`training.max_length`", "the chat template is the tokenizer's", "`lora.attention`"
LAUNCH = "choose a file of configs/accelerate/ at launch instead"
NOT_HERE = "olmoe_ft has nothing like it; remove it"

MODEL = (
    Group(
        "set `model.path` instead",
        "base_model model_name_or_path model_name model_id pretrained_model_name_or_path base_model_name_or_path "
        "adapter_name_or_path lora_model_dir",
    ),
    Group(
        "set `model.tokenizer` instead",
        "tokenizer_name tokenizer_name_or_path tokenizer_path tokenizer_config tokenizer",
    ),
    Group(
        f"{TEMPLATE}; set `model.tokenizer` instead",
        "chat_template template chat_template_name default_system special_tokens add_special_tokens "
        "additional_special_tokens add_bos resize_vocab new_special_tokens_config",
    ),
    Group(
        "set `model.dtype` instead",
        "torch_dtype bfloat16 float16 float32 pure_bf16 half_precision_backend fp16_backend fp16_opt_level",
    ),
    Group(
        "set `model.attn_implementation` instead",
        "flash_attention flash_attn use_flash_attn use_flash_attention use_flash_attention_2 sdp_attention "
        "eager_attention xformers_attention flex_attention",
    ),
    Group(
        "set `model.quantization: nf4` beside a `lora` section instead",
        "load_in_4bit load_in_8bit quantization_bit quantization_method use_qlora bnb_4bit_quant_type "
        "bnb_4bit_compute_dtype bnb_4bit_use_double_quant use_bnb_nested_quant double_quantization",
    ),
    Group("download that revision and name its folder in `model.path`", "model_revision "),
    Group(
        "the model's own configuration file has it; name one in `model.config`",
        "rope_scaling rope_theta overrides_of_model_config",
    ),
    Group(f"the launch decides where the weights go; {LAUNCH}", "device_map low_cpu_mem_usage no_cuda use_mps_device"),
    Group("no code is loaded from the Hub; remove it", "trust_remote_code"),
)
DATA = (
    Group(
        "set `data.train` instead, a list of sources such as `- {path: rows.jsonl, weight: 0.5}`",
        "datasets dataset dataset_name dataset_name_or_path dataset_path dataset_dir dataset_mixer dataset_mixer_list "
        "dataset_mixture train_file train_dataset data_path data_files pretraining_dataset ",
    ),
    Group("set `data.train.0.config` instead", "dataset_config dataset_config_name dataset_config_id"),
    Group("set `data.train.0.split` instead", "dataset_train_split dataset_mixer_list_splits train_split"),
    Group("set `data.train.0.revision` instead", "dataset_revision"),
    Group("set `data.train.0.weight` instead", "interleave_probs mix_strategy dataset_weights"),
    Group("set `data.train.0.max_rows` instead", "max_train_samples max_samples num_samples"),
    Group(
        "set `data.train.0.columns` instead",
        "sft_messages_key preference_chosen_key dataset_text_key input_key output_key",
    ),
    Group(
        "set `data.eval` instead, a list of sources",
        "test_datasets eval_dataset eval_datasets eval_dataset_name dataset_mixer_eval_list validation_file "
        "dataset_test_split",
    ),
    Group(
        "no rows are split off at random; name held-out rows in `data.eval`",
        "val_set_size val_size validation_split_percentage test_size test_split_ratio",
    ),
    Group("set `data.eval.0.max_rows` instead", "max_eval_samples"),
    Group("set `data.max_prompt_length` instead", "max_prompt_length max_source_length max_prompt_token_length"),
    Group(
        "set `training.max_length` and `data.long_answers` instead",
        "max_completion_length max_target_length max_response_length",
    ),
    Group(
        "only assistant turns are learned; choose among them with `data.learn`",
        "train_on_inputs train_on_prompt train_on_eos train_on_eot roles_to_train mask_history mask_prompt "
        "train_on_responses_only response_template instruction_template",
    ),
    Group("set `data.turn_marks: obey` instead", "message_field_training message_field_training_detail"),
    Group(
        "set `data.cache` instead",
        "dataset_prepared_path tokenized_path dataset_cache_dir dataset_local_cache_dir cache_dir",
    ),
    Group("rows are read once and kept in `data.cache`; remove it", "streaming overwrite_cache buffer_size"),
    Group("set `data.long_prompts` and `data.long_answers` instead", "excess_length_strategy truncation_side"),
)
LORA = (
    Group(
        "add a `lora` section instead (without one all weights are trained)",
        "adapter use_lora use_peft finetuning_type peft peft_config",
    ),
    Group("set `lora.r` instead", "lora_r lora_rank rank "),
    Group("set `lora.alpha` instead", "lora_alpha "),
    Group("set `lora.dropout` instead", "lora_dropout "),
    Group(
        f"set {TARGETS} and `lora.experts` instead",
        "lora_target lora_target_modules lora_target_linear target_linear lora_mlp_kernel",
    ),
    Group(
        "set `router.train` instead",
        "lora_modules_to_save additional_target unfrozen_parameters freeze_router freeze_gate",
    ),
    Group("set `lora.use_rslora` instead", "peft_use_rslora "),
    Group("set `lora.init_lora_weights` instead", "peft_init_lora_weights pissa_init"),
    Group("`olmoe-ft merge` merges the adapters; remove it", "merge_lora merge_adapter export_dir"),
    Group(
        NOT_HERE, "loraplus_lr_ratio loraplus_lr_embedding lora_bias lora_task_type peft_use_dora create_new_adapter"
    ),
)
LOSSES = (
    Group("set `training.beta` instead", "pref_beta dpo_beta rl_beta kl_coef"),
    Group("set `training.desirable_weight` instead", "kto_chosen_weight kto_desirable_weight"),
    Group("set `training.undesirable_weight` instead", "kto_rejected_weight kto_undesirable_weight"),
    Group("set `training.loss_type` instead", "pref_loss dpo_loss_type dpo_loss preference_loss"),
    Group("set `training.label_smoothing` instead", "dpo_label_smoothing "),
    Group(
        "set `training.loss_type: [sigmoid, sft]` with `training.loss_weights: [1.0, …]` instead",
        "rpo_alpha pref_ftx dpo_ftx ",
    ),
    Group("set `stage: dpo` or `stage: kto` instead", "rl "),
    Group(
        "the reference is the model that training starts from, `model.path`; remove it",
        "ref_model reference_model ref_model_name ref_model_path reference_model_path ref_model_init_kwargs "
        "ref_adapter_name model_adapter_name force_use_ref_model ref_model_revision",
    ),
    Group(
        "TRL no longer has DPO without a reference; remove it",
        "reference_free average_log_prob simpo_gamma cpo_alpha orpo_alpha",
    ),
    Group("set `training.precompute_ref_log_probs` instead", "reference_logprobs_cache_path concatenated_forward"),
    Group(
        "set `data.answers` instead, prompts whose answers are checked",
        "generate_during_eval predict_with_generate do_bench_eval",
    ),
    Group(
        "set `router.load_balancing_coef` instead (its loss is 1.0 at balance; that of transformers is 8)",
        "router_aux_loss_coef moe_aux_loss_coef aux_loss aux_loss_coef aux_loss_alpha load_balancing_loss "
        "load_balancing_weight load_balancing_loss_weight moe_loss_weight output_router_logits ",
    ),
    Group(
        "set `router.z_loss_coef` instead",
        "router_z_loss_coef z_loss z_loss_weight moe_z_loss_weight z_loss_multiplier",
    ),
)
TRAINING = (
    Group(
        f"set {LENGTH} instead",
        "sequence_len cutoff_len max_seq_length max_seq_len model_max_length block_size seq_length sequence_length "
        "max_token_length",
    ),
    Group("set `training.per_device_train_batch_size` instead", "micro_batch_size per_gpu_train_batch_size"),
    Group(
        "set `training.per_device_train_batch_size` and `training.gradient_accumulation_steps` instead",
        "batch_size train_batch_size global_batch_size total_batch_size",
    ),
    Group("set `training.per_device_eval_batch_size` instead", "eval_batch_size per_gpu_eval_batch_size"),
    Group(
        "set `training.gradient_accumulation_steps` instead", "gradient_accumulation grad_accum accumulate_grad_batches"
    ),
    Group("set `training.num_train_epochs` instead", "num_epochs epochs"),
    Group("set `training.max_steps` instead", "max_train_steps num_train_steps total_steps"),
    Group("set `training.learning_rate` instead", "lr peak_lr"),
    Group("set `training.lr_scheduler_type` instead", "lr_scheduler scheduler scheduler_type learning_rate_scheduler"),
    Group(
        "set `training.lr_scheduler_type: cosine_with_min_lr` with `training.lr_scheduler_kwargs: {min_lr_rate: …}`",
        "final_lr_ratio cosine_min_lr_ratio min_lr min_lr_rate lr_end",
    ),
    Group(
        "set `training.warmup_steps` instead; a number below 1 is a share of all steps",
        "warmup_ratio num_warmup_steps ",
    ),
    Group("set `training.optim` instead", "optimizer fused_optimizer dpo_use_paged_optimizer use_paged_optimizer "),
    Group("set `training.optim: adafactor` instead", "adafactor"),
    Group("set `training.max_grad_norm` instead", "gradient_clipping clip_grad_norm grad_clip max_norm"),
    Group("set `training.packing` instead, which always keeps rows apart", "sample_packing neat_packing packed "),
    Group("set `training.eval_packing` instead", "eval_sample_packing"),
    Group("set `training.train_sampling_strategy: group_by_length` instead", "group_by_length length_grouped_batching"),
    Group("set `training.pad_to_multiple_of` instead", "pad_to_sequence_len pad_to_max_length"),
    Group(
        "set `training.dataset_num_proc` instead",
        "preprocessing_num_workers dataset_processes num_proc dataset_preparation_num_proc ",
    ),
    Group("set `training.shuffle_dataset` instead", "shuffle_merged_datasets shuffle_train_dataset"),
    Group("set `training.eval_strategy` instead", "evaluation_strategy evaluate_during_training"),
    Group("set `training.eval_steps` instead", "evals_per_epoch eval_interval eval_freq"),
    Group("set `training.save_steps` instead", "saves_per_epoch checkpointing_steps save_interval save_freq"),
    Group("set `training.save_total_limit` instead", "keep_last_n_checkpoints"),
    Group(
        "set `training.load_best_model_at_end` instead; a run never stops early",
        "early_stopping_patience early_stopping",
    ),
    Group("set `training.neftune_noise_alpha` instead", "noisy_embedding_alpha neftune_alpha"),
    Group("set `training.torch_compile` instead", "compile torchdynamo "),
    Group(
        "set `training.gradient_checkpointing` instead",
        "use_gradient_checkpointing enable_gradient_checkpointing disable_gradient_checkpointing use_unsloth_gc ",
    ),
    Group("the same command continues from the last checkpoint; remove it", "auto_resume_from_checkpoints resume_from"),
    Group(
        "a run directory is never overwritten; set another `name`, or remove the folder",
        "overwrite_output_dir clean_checkpoints_at_end ",
    ),
    Group(
        "the network here is fast by itself; remove it",
        "enable_liger_kernel use_liger liger_rope liger_rms_norm liger_glu_activation use_unsloth plugins",
    ),
    Group("checkpoints are always safetensors; remove it", "save_safetensors"),
    Group(
        LAUNCH,
        "deepspeed_config fsdp_transformer_layer_cls_to_wrap zero_stage ddp num_processes mp_parameters tpu_num_cores",
    ),
    Group(
        "attention here needs whole rows, so they are not split across devices; remove it",
        "context_parallel_size sequence_parallel_size sequence_parallel_degree tensor_parallel_size tensor_parallel",
    ),
)
TRACKING = (
    Group("set `tracking.project` instead", "wandb_project wandb_project_name tracker_project_name tracker_project"),
    Group(
        "set `tracking.wandb` instead",
        "with_tracking use_wandb wandb wandb_mode use_swanlab use_tensorboard use_mlflow report_to",
    ),
    Group(
        "the run is called by the recipe's `name`; remove it",
        "wandb_name wandb_run_name wandb_run_id wandb_group exp_name run_name ",
    ),
    Group("set the environment variable WANDB_ENTITY instead", "wandb_entity"),
    Group(
        "runs stay on disk; upload runs/<name>/final when it is good",
        "push_to_hub hub_model_id hf_entity hf_repo_id hf_repo_revision hub_token",
    ),
    Group("models are not uploaded; remove it", "wandb_log_model wandb_watch"),
    Group("the run directory is runs/<name>/; set `name` instead", "output_dir output_path save_dir checkpoint_dir"),
    Group(
        "the records are in runs/<name>/metrics.jsonl and where `tracking` says; remove it",
        "logging_dir plot_loss log_dir",
    ),
)
