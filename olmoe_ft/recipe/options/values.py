"""Values that an option may have: choices, and limits of numbers beyond which a library fails far from the recipe."""

from collections.abc import Iterator
from typing import Any

from olmoe_ft.recipe.wording import shown

LEAST = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "precompute_ref_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "dataset_num_proc": 1,
    "dataloader_num_workers": 0,
    "dataloader_prefetch_factor": 1,
    "save_total_limit": 1,
    "torch_empty_cache_steps": 1,
    "ref_model_sync_steps": 1,
    "pad_to_multiple_of": 1,
    "ddp_bucket_cap_mb": 1,
    "ddp_timeout": 1,
    "max_length": 2,
    "learning_rate": 0,
    "warmup_steps": 0,
    "eval_delay": 0,
    "weight_decay": 0,
    "max_grad_norm": 0,
    "adam_beta1": 0,
    "adam_beta2": 0,
    "neftune_noise_alpha": 0,
    "label_smoothing": 0,
    "label_smoothing_factor": 0,
    "ld_alpha": 0,
    "ref_model_mixup_alpha": 0,
    "seed": 0,
    "data_seed": 0,
}
ABOVE = {
    "num_train_epochs": 0,
    "logging_steps": 0,
    "eval_steps": 0,
    "save_steps": 0,
    "adam_epsilon": 0,
    "beta": 0,
    "desirable_weight": 0,
    "undesirable_weight": 0,
    "discopop_tau": 0,
}
MOST = {"ld_alpha": 1, "ref_model_mixup_alpha": 1, "seed": 2**32 - 1, "data_seed": 2**32 - 1}
BELOW = {"adam_beta1": 1, "adam_beta2": 1, "label_smoothing": 1, "label_smoothing_factor": 1}
SHARES = ("logging_steps", "eval_steps", "save_steps", "warmup_steps")  # of all steps, where they are below 1

LEVELS = ("debug", "info", "warning", "error", "critical", "detail", "passive")
# choices of fields that do not list them in their own source
CHOICES: dict[str, tuple[str | bool, ...]] = {
    "log_level": LEVELS,
    "log_level_replica": LEVELS,
    "include_num_input_tokens_seen": ("all", "non_padding", "no", True, False),
    "torch_compile_backend": ("inductor", "aot_eager", "eager", "cudagraphs"),
    "torch_compile_mode": ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"),
}


def wrong_number(name: str, value: Any) -> Iterator[str]:
    """Mistakes in a number that has the right type."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    found = f"found {shown(value)}; it must be"
    if name in LEAST and value < LEAST[name]:
        yield f"{found} at least {LEAST[name]}"
    if name in ABOVE and value <= ABOVE[name]:
        yield f"{found} above {ABOVE[name]}"
    if name in MOST and value > MOST[name]:
        yield f"{found} at most {MOST[name]}"
    if name in BELOW and value >= BELOW[name]:
        yield f"{found} below {BELOW[name]}"
    if name in SHARES and value > 1 and value != int(value):
        yield f"{found} a whole number of steps, or a share of all steps below 1"
    if name == "max_steps" and (value == 0 or value < -1):
        yield f"{found} at least 1; remove it to train for `num_train_epochs`"
