"""Greedy answers to prompts."""

import torch
from transformers import PreTrainedTokenizerBase

from olmoe_ft.model.olmoe import OlmoeForCausalLM


@torch.no_grad()
def complete(
    model: OlmoeForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: list[str], max_new_tokens: int
) -> list[str]:
    """What the model says behind each text: greedy, up to EOS or `max_new_tokens`, left-padded."""
    inputs = tokenizer(
        prompts,
        add_special_tokens=False,  # the chat template has written them
        padding=True,
        padding_side="left",
        return_tensors="pt",
        return_token_type_ids=False,
    ).to(model.device)
    output = model.generate(
        **inputs,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
