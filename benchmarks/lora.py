"""LoRA on attention and experts here and in PEFT on transformers' grouped path: seconds and memory of a training step.

The same weights, adapters and tokens in one process, taking turns. Without a GPU the network is `mid`; with one it is
OLMoE-1B-7B's (random weights, bf16, checkpointing). The second table shows how the cost grows with rank and tokens
beside what the arithmetic says: each token passes the active weights forward and backward, without gradients of frozen
ones, and the factors with theirs.
"""

import gc
import os
import statistics
from typing import Annotated, Any

import peft
import torch
import transformers
import typer
from network import clock
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from olmoe_ft.adapters.lora import ATTENTION, EXPERTS
from olmoe_ft.model import OlmoeConfig, OlmoeForCausalLM
from olmoe_ft.model.size import matrix_parameters_per_token

MID = {"vocab_size": 1024, "hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8}
RELEASED = {"vocab_size": 50304, "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 16}
CASES = {"cpu": ((1, 512), (1, 1024), (4, 1024)), "cuda": ((4, 4096),)}
DTYPES = {"cpu": torch.float32, "cuda": torch.bfloat16}
RANKS = (4, 16, 64, 256)
LENGTHS = (256, 1024, 4096)


def sizes(device: str, intermediate_size: int) -> dict[str, Any]:
    usual = {"num_experts": 64, "num_experts_per_tok": 8, "eos_token_id": 2, "use_cache": False}
    shape = RELEASED if device == "cuda" else MID
    return {**shape, **usual, "intermediate_size": intermediate_size, "attn_implementation": "sdpa"}


def adapted(network: torch.nn.Module, rank: int, device: str) -> peft.PeftModel:
    """Under a fresh adapter with both factors random; on a GPU with checkpointing, as one trains there."""
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=2 * rank,
        target_modules=ATTENTION,
        target_parameters=EXPERTS,
        init_lora_weights=False,
    )
    if device == "cuda":
        network.gradient_checkpointing_enable({"use_reentrant": False})
    return peft.get_peft_model(network, config)


def ours(rank: int, device: str, intermediate_size: int) -> peft.PeftModel:
    with torch.device(device):
        network = OlmoeForCausalLM(OlmoeConfig(**sizes(device, intermediate_size)))
        return adapted(network.to(DTYPES[device]), rank, device)


def networks(rank: int, device: str, intermediate_size: int) -> dict[str, peft.PeftModel]:
    """PEFT on transformers' network, and ours with the same weights."""
    config = transformers.OlmoeConfig(**sizes(device, intermediate_size), experts_implementation="grouped_mm")
    with torch.device(device):
        stock = adapted(transformers.OlmoeForCausalLM(config).to(DTYPES[device]), rank, device)
    models = {"PEFT, transformers": stock, "olmoe_ft": ours(rank, device, intermediate_size)}
    models["olmoe_ft"].load_state_dict(stock.state_dict())
    return models


def step(model: torch.nn.Module, ids: torch.Tensor, device: str) -> tuple[float, float]:
    """Seconds of a forward and backward pass, and the loss."""
    start, _ = clock(device)
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    end, _ = clock(device)
    model.zero_grad(set_to_none=True)
    return end - start, loss.item()


def peak_bytes(model: torch.nn.Module, ids: torch.Tensor, device: str) -> int:
    """The most that a step had allocated at once beyond what was there before it, the weights."""
    gc.collect()
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step(model, ids, device)
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step(model, ids, device)
    events = profiler.profiler.kineto_results.events()
    allocated = peak = 0
    for event in sorted((event for event in events if event.name() == "[memory]"), key=lambda event: event.start_ns()):
        allocated += event.nbytes()
        peak = max(peak, allocated)
    return peak


def compare(rank: int, rounds: int, device: str, intermediate_size: int) -> Table:
    models = networks(rank, device, intermediate_size)
    table = Table("tokens", "network", "step s", "tokens/s", "speed", "peak above weights MiB", "of PEFT's", "loss")
    for shape in CASES[device]:
        ids = torch.randint(0, 1024, shape, device=device)
        times: dict[str, list[float]] = {name: [] for name in models}
        losses: dict[str, float] = {}
        for turn in track(range(rounds + 1), f"{shape[0]} x {shape[1]:,} tokens", transient=True):
            for name in list(models) if turn % 2 else reversed(models):
                seconds, losses[name] = step(models[name], ids, device)
                times[name] += [seconds] if turn else []  # the first one warms up
        theirs, own = losses.values()
        assert abs(theirs - own) < (1e-5 if device == "cpu" else 1e-2), losses
        medians = {name: statistics.median(values) for name, values in times.items()}
        peaks = {name: peak_bytes(model, ids, device) for name, model in models.items()}
        first = next(iter(models))
        for name in models:
            table.add_row(
                f"{shape[0]} x {shape[1]:,}", name, f"{medians[name]:.3f}", f"{ids.numel() / medians[name]:,.0f}",
                f"{medians[first] / medians[name]:.2f}", f"{peaks[name] / 2**20:,.0f}",
                f"{peaks[name] / peaks[first]:.2f}", f"{losses[name]:.6f}",
            )  # fmt: skip
    return table


def operations(rank: int, tokens: int, options: dict[str, Any]) -> tuple[float, float]:
    """FLOPs of a step in the network's active weights and in the factors; attention scores left out.

    A product of a token with n weights is 2n forward and 2n for the token's gradient, and 2n for trained weights'.
    """
    config = OlmoeConfig(**options)
    hidden, inner = config.hidden_size, config.intermediate_size
    an_expert = (hidden + 2 * inner) + (inner + hidden)
    factors = config.num_hidden_layers * rank * (4 * 2 * hidden + config.num_experts_per_tok * an_expert)
    return 4.0 * matrix_parameters_per_token(config) * tokens, 6.0 * factors * tokens


def growth(rounds: int, device: str, intermediate_size: int) -> Table:
    """Ours alone: ranks at 1,024 tokens, lengths at rank 16; relative to rank 16 and 1,024 tokens."""
    options = sizes(device, intermediate_size)
    rows = [(rank, 1024) for rank in RANKS] + [(16, length) for length in LENGTHS]
    found: dict[tuple[int, int], tuple[float, float]] = {}
    for rank in RANKS:
        model = ours(rank, device, intermediate_size)
        for tokens in [tokens for r, tokens in dict.fromkeys(rows) if r == rank]:
            ids = torch.randint(0, 1024, (1, tokens), device=device)
            times = [step(model, ids, device)[0] for _ in track(range(rounds + 1), f"rank {rank}", transient=True)]
            found[rank, tokens] = statistics.median(times[1:]), peak_bytes(model, ids, device)
    table = Table("rank", "tokens", "step s", "relative", "by FLOPs", "of them in factors", "peak above weights MiB")
    for rank, tokens in rows:
        frozen, factors = operations(rank, tokens, options)
        seconds, peak = found[rank, tokens]
        table.add_row(
            str(rank), f"{tokens:,}", f"{seconds:.3f}", f"{seconds / found[16, 1024][0]:.2f}",
            f"{(frozen + factors) / sum(operations(16, 1024, options)):.2f}", f"{factors / (frozen + factors):.1%}",
            f"{peak / 2**20:,.0f}",
        )  # fmt: skip
    return table


def main(
    rank: int = 16,
    rounds: Annotated[int, typer.Option(help="Measured steps of each network; medians are shown.")] = 5,
    intermediate_size: Annotated[int | None, typer.Option(help="512 by default, 1,024 on a GPU.")] = None,
) -> None:
    torch.manual_seed(0)
    os.environ["KINETO_LOG_LEVEL"] = "99"  # the profiler announces itself otherwise
    device = "cuda" if torch.cuda.is_available() else "cpu"
    where = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    inner = intermediate_size or (1024 if device == "cuda" else 512)
    options = sizes(device, inner)
    table = compare(rank, rounds, device, inner)
    table.title = (
        f"LoRA rank {rank} on attention and experts, forward and backward: hidden {options['hidden_size']}, "
        f"intermediate {inner}, 64 experts, top-8, {options['num_hidden_layers']} layers; {where}; "
        f"torch {torch.__version__}, transformers {transformers.__version__}, PEFT {peft.__version__}; "
        f"medians of {rounds}"
    )
    console = Console(width=130)
    console.print(table)
    table = growth(3, device, inner)
    table.title = "olmoe_ft: how the cost grows, relative to rank 16 at 1,024 tokens; medians of 3"
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
