"""Our network beside transformers' OLMoE with its grouped experts: forward and backward, same weights, one process.

    python benchmarks/network.py [--dtype float32] [--rounds 3] [--intermediate-size 512]

The two take turns and swap places every round, so that a slow moment of the machine meets both. CPU seconds are those
of all the process's threads: they vary less than the clock where other programs share the machine.
"""

import statistics
import time

import torch
import transformers
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from olmoe_ft.model import OlmoeConfig, OlmoeForCausalLM

BATCHES = {"1 x 1,024": (1, 1024), "4 x 1,024": (4, 1024)}


def clock(device: str) -> tuple[float, float]:
    """Clock and CPU seconds now, when all that was asked of the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def step(model: torch.nn.Module, ids: torch.Tensor, device: str) -> tuple[float, float, float, float]:
    """Seconds of one forward pass, of its backward pass, of both, and of both in CPU time."""
    start, start_cpu = clock(device)
    loss = model(ids, labels=ids, output_router_logits=True).loss
    middle, _ = clock(device)
    loss.backward()
    end, end_cpu = clock(device)
    model.zero_grad(set_to_none=True)
    return middle - start, end - middle, end - start, end_cpu - start_cpu


def networks(intermediate_size: int, dtype: torch.dtype, device: str) -> dict[str, torch.nn.Module]:
    sizes = {
        "vocab_size": 1024,
        "hidden_size": 512,
        "intermediate_size": intermediate_size,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_experts": 64,
        "num_experts_per_tok": 8,
        "eos_token_id": 2,
        "use_cache": False,
    }
    stock = transformers.OlmoeForCausalLM(
        transformers.OlmoeConfig(**sizes, experts_implementation="grouped_mm", attn_implementation="sdpa")
    )
    ours = OlmoeForCausalLM(OlmoeConfig(**sizes, attn_implementation="sdpa"))
    ours.load_state_dict(stock.state_dict())
    return {"transformers": stock.to(device, dtype), "olmoe_ft": ours.to(device, dtype)}


def measure(models: dict[str, torch.nn.Module], shape: tuple[int, int], rounds: int, device: str) -> dict:
    """Name -> what `step` took in each round, without the first, which warms up."""
    ids = torch.randint(0, 1024, shape, device=device)
    times: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in models}
    for turn in track(range(rounds + 1), f"{shape[0]} x {shape[1]:,} tokens", transient=True):
        for name in list(models) if turn % 2 else reversed(models):
            once = step(models[name], ids, device)
            if turn:
                times[name].append(once)
    return times


def main(dtype: str = "float32", rounds: int = 3, intermediate_size: int = 512) -> None:
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    where = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    models = networks(intermediate_size, getattr(torch, dtype), device)
    table = Table(
        "tokens", "network", "forward s", "backward s", "both s", "CPU s", "speed by the clock", "by CPU",
        title=f"hidden 512, intermediate {intermediate_size}, 64 experts, top-8, 4 layers; {dtype}; {where}; "
        f"torch {torch.__version__}, transformers {transformers.__version__}; "
        f"medians of {4 * rounds} and {rounds} rounds",
    )  # fmt: skip
    for name, shape in BATCHES.items():
        times = measure(models, shape, 4 * rounds if shape[0] == 1 else rounds, device)
        medians = {network: list(map(statistics.median, zip(*rows, strict=True))) for network, rows in times.items()}
        for network, values in medians.items():
            speeds = [f"{medians['transformers'][kind] / values[kind]:.2f}" for kind in (2, 3)]
            table.add_row(name, network, *(f"{value:.2f}" for value in values), *speeds)
    Console(width=130).print(table)


if __name__ == "__main__":
    typer.run(main)
