"""Talk to a checkpoint."""

import torch
from transformers import PreTrainedTokenizerBase

from olmoe_ft.checkpoints.folders import resolve_checkpoint
from olmoe_ft.checkpoints.weights import load_whole
from olmoe_ft.data.template import Messages, prompts
from olmoe_ft.data.terminal import say
from olmoe_ft.data.tokenizer import load_tokenizer
from olmoe_ft.model import OlmoeForCausalLM
from olmoe_ft.model.generate import complete


def answer_once(path: str, prompt: str, max_new_tokens: int) -> str:
    """The model's greedy answer to one user turn."""
    model, tokenizer = _load(path)
    return complete(model, tokenizer, prompts([[{"role": "user", "content": prompt}]], tokenizer), max_new_tokens)[0]


def converse(path: str, max_new_tokens: int) -> None:
    """Turn by turn on the terminal, until an empty line or the end of input."""
    model, tokenizer = _load(path)
    messages: Messages = []
    print("An empty line ends the conversation.")
    while turn := _read_turn():
        messages.append({"role": "user", "content": turn})
        (answer,) = complete(model, tokenizer, prompts([messages], tokenizer), max_new_tokens)
        messages.append({"role": "assistant", "content": answer})
        say(answer)


def _read_turn() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        return ""


def _load(path: str) -> tuple[OlmoeForCausalLM, PreTrainedTokenizerBase]:
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    model = load_whole(path).to(device).eval()
    return model, load_tokenizer(resolve_checkpoint(path), model.config.vocab_size)
