"""Forward and backward of this network beside transformers' grouped path: same weights, same batch, one process.

    python benchmarks/forward_backward.py [--device cuda]

Runs are interleaved; the table gives medians of five after one warm-up, and the losses of both sides must agree.
"""

import argparse
import statistics
import time

import torch
import transformers
from rich.console import Console
from rich.table import Table

from olmoe_ft.model import OlmoeConfig, OlmoeForCausalLM

SIZES = {
    "tiny": {"hidden_size": 128, "intermediate_size": 64, "num_hidden_layers": 4, "num_experts": 16, "vocab_size": 512},
    "mid": {"hidden_size": 512, "intermediate_size": 256, "num_hidden_layers": 4, "num_experts": 64},
}
CASES = [("tiny", 1024), ("tiny", 4096), ("mid", 1024), ("mid", 4096)]
REPEATS = 5


def seconds(model: torch.nn.Module, ids: torch.Tensor) -> tuple[float, float]:
    """One forward and backward: how long it took, and its loss."""
    model.zero_grad()
    started = time.perf_counter()
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    if ids.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started, loss.item()


def compare(size: str, tokens: int, device: str) -> tuple[float, float]:
    """Median seconds of (ours, transformers)."""
    options = {"num_attention_heads": 8, "num_experts_per_tok": 8, **SIZES[size]}
    stock = transformers.OlmoeForCausalLM(transformers.OlmoeConfig(**options)).to(device)
    ours = OlmoeForCausalLM(OlmoeConfig(**options)).to(device)
    ours.load_state_dict(stock.state_dict())
    ids = torch.randint(3, 500, (tokens // 512, 512), device=device)
    times: dict[str, list[float]] = {"ours": [], "stock": []}
    for _ in range(REPEATS + 1):
        (our_time, our_loss), (stock_time, stock_loss) = seconds(ours, ids), seconds(stock, ids)
        assert abs(our_loss - stock_loss) < 1e-4, (our_loss, stock_loss)
        times["ours"].append(our_time)
        times["stock"].append(stock_time)
    return statistics.median(times["ours"][1:]), statistics.median(times["stock"][1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    device = parser.parse_args().device
    torch.manual_seed(0)
    threads = f", {torch.get_num_threads()} threads" if device == "cpu" else ""
    table = Table(title=f"forward + backward, fp32, rows of 512 tokens, {device}{threads}")
    for column in ("size", "tokens", "ours", "transformers", "speed"):
        table.add_column(column, justify="right")
    for size, tokens in CASES:
        our_time, stock_time = compare(size, tokens, device)
        table.add_row(size, f"{tokens}", f"{our_time:.3f} s", f"{stock_time:.3f} s", f"{stock_time / our_time:.2f}x")
    Console().print(table)


if __name__ == "__main__":
    main()
