"""Talk to a checkpoint."""

import torch
from transformers import PreTrainedTokenizerBase

from olmoe_ft.adapters.checkpoints import load_whole, resolve_checkpoint
from olmoe_ft.data.tokenizer import load_tokenizer
from olmoe_ft.model import OlmoeForCausalLM

Messages = list[dict[str, str]]


def answer_once(path: str, prompt: str, max_new_tokens: int) -> str:
    """The model's greedy answer to one user turn."""
    model, tokenizer = _load(path)
    return _answer(model, tokenizer, [{"role": "user", "content": prompt}], max_new_tokens)


def converse(path: str, max_new_tokens: int) -> None:
    """Turn by turn on the terminal, until an empty line or the end of input."""
    model, tokenizer = _load(path)
    messages: Messages = []
    print("An empty line ends the conversation.")
    while turn := _read_turn():
        messages.append({"role": "user", "content": turn})
        messages.append({"role": "assistant", "content": _answer(model, tokenizer, messages, max_new_tokens)})
        print(messages[-1]["content"])


def _read_turn() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        return ""


def _load(path: str) -> tuple[OlmoeForCausalLM, PreTrainedTokenizerBase]:
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    model = load_whole(path).to(device).eval()
    return model, load_tokenizer(resolve_checkpoint(path), model.config.vocab_size)


@torch.no_grad()
def _answer(
    model: OlmoeForCausalLM, tokenizer: PreTrainedTokenizerBase, messages: Messages, max_new_tokens: int
) -> str:
    inputs = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    ).to(model.device)
    output = model.generate(
        **inputs,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
