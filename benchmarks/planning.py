"""Predicted and measured peak memory of training steps, side by side: `python benchmarks/planning.py`.

Measured is what torch's CPU allocator had given out at most during the steps of real runs, by torch's profiler, of the
first process; predicted is what `olmoe-ft plan` says for the same recipe and machine.
"""

import json
import os
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
SHORT = ["training.max_steps=3", "training.save_strategy='no'", "data.answers=null", "tracking.wandb='off'"]
MID = {
    "vocab_size": 512, "hidden_size": 512, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8,
    "num_experts": 64, "num_experts_per_tok": 8, "pad_token_id": 1, "bos_token_id": 511, "eos_token_id": 511,
}  # fmt: skip
MID_SFT = ["sft", "model.config=mid.json", "training.per_device_train_batch_size=4", "training.max_length=512"]


def measure(recipe: str, overrides: list[str]) -> None:
    """Run one recipe here and print the peak of its steps, of the first process of a launch."""
    from torch.profiler import ProfilerActivity, profile, record_function
    from transformers import Trainer

    from olmoe_ft.pipeline import run
    from olmoe_ft.recipe import load_recipe

    steps, weights = Trainer._inner_training_loop, []

    def marked_steps(self, *args, **kwargs):
        models = [self.model, *([self.ref_model] if getattr(self, "ref_model", None) is not None else [])]
        weights.append(sum(weight.nbytes for model in models for weight in model.parameters()))
        with record_function("training"):
            return steps(self, *args, **kwargs)

    Trainer._inner_training_loop = marked_steps
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run(load_recipe(recipe, overrides))
    assert profiler.profiler is not None
    events = profiler.profiler.kineto_results.events()
    [training] = [event for event in events if event.name() == "training"]
    # of what was there before only the weights count: files that are mapped into memory are reported too
    allocated = peak = weights[0]
    for event in sorted((event for event in events if event.name() == "[memory]"), key=lambda event: event.start_ns()):
        if training.start_ns() <= event.start_ns() <= training.end_ns():
            allocated += event.nbytes()
            peak = max(peak, allocated)
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps({"peak": peak}))


if __name__ == "__main__":
    measure(sys.argv[1], sys.argv[2:])
