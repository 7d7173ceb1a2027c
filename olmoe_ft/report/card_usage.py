"""How to load what lies in a run's final/ or in a merged folder, for its model card."""

from pathlib import Path
from typing import Any

from olmoe_ft.checkpoints.folders import is_adapter
from olmoe_ft.report.origin import base_on_hub

CHAT = """\
messages = [{"role": "user", "content": "…"}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
output = model.generate(**inputs.to(model.device), max_new_tokens=256)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))"""
TRANSFORMERS = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

name = {name}
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoModelForCausalLM.from_pretrained(name, dtype="auto", device_map="auto")
"""
PEFT = """\
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

name = {name}
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoPeftModelForCausalLM.from_pretrained(name, dtype="auto", device_map="auto")  # fetches the base too
"""
PEFT_ON_FOLDER = """\
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

name = {name}
tokenizer = AutoTokenizer.from_pretrained(name)
base = AutoModelForCausalLM.from_pretrained("the folder of its base", dtype="auto", device_map="auto")
model = PeftModel.from_pretrained(base, name)
"""
VLLM = """\
from vllm import LLM

llm = LLM({name})
print(llm.chat([{{"role": "user", "content": "…"}}])[0].outputs[0].text)"""
OF_VLLM = {  # what vLLM's OLMoE takes for granted (vLLM 0.33)
    "rms_norm_eps": (1e-5, "its norms use rms_norm_eps 1e-5"),
    "norm_topk_prob": (False, "it does not normalise the weights of the chosen experts"),
    "clip_qkv": (None, "it does not clip queries, keys and values"),
}


def usage(folder: Path, network: dict[str, Any], repository: str | None) -> list[tuple[str, str, str, str]]:
    """Ways to load a folder: for each its title, a sentence, code, and the language of the code."""
    name = f'"{repository}"' if repository else '"owner/name"  # this repository, or the folder that this file is in'
    in_call = f'"{repository or "owner/name"}"'
    if not is_adapter(str(folder)):
        return [
            ("transformers", "", TRANSFORMERS.format(name=name) + CHAT, "python"),
            ("vLLM", _of_vllm(network), VLLM.format(name=in_call), "python"),
        ]
    merged = "olmoe-ft merge RUN --to merged"
    only_merged = "vLLM takes no adapters on experts. Fold the adapter into its base first, then serve the folder:"
    if base_on_hub(folder) is not None:
        return [
            ("PEFT", "", PEFT.format(name=name) + CHAT, "python"),
            (
                "transformers",
                "Where PEFT is installed, transformers loads base and adapter by the adapter's name.",
                TRANSFORMERS.format(name=name),
                "python",
            ),
            ("vLLM", only_merged, f"{merged}\nvllm serve merged", "sh"),
        ]
    on_folder = (
        "The base of this adapter is a local folder, so it must be named. Or fold the adapter in: `" + merged + "`."
    )
    return [
        ("PEFT", on_folder, PEFT_ON_FOLDER.format(name=name) + CHAT, "python"),
        ("transformers", "After `" + merged + "`:", TRANSFORMERS.format(name='"merged"'), "python"),
        ("vLLM", only_merged, f"{merged}\nvllm serve merged", "sh"),
    ]


def _of_vllm(network: dict[str, Any]) -> str:
    different = [what for key, (value, what) in OF_VLLM.items() if key in network and network[key] != value]
    if not different:
        return ""
    return f"vLLM computes something else for this network: {'; '.join(different)}. Compare its answers before use."
