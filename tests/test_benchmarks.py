"""What `make bench` computes rather than measures, and its measure of memory."""

import torch
from lora import operations, peak_bytes


def test_operations_of_a_step_by_hand():
    """One token, one layer, H = 4, I = 2, 3 experts of which 2 work, vocabulary 5, rank 1.

    Frozen: attention 4 x 16 = 64, router 12, experts 2 x 3 x 8 = 48, head 20: 144 x 4 = 576. Factors: attention
    4 x (4 + 4) = 32, experts 2 x ((4 + 4) + (2 + 4)) = 28: 60 x 6 = 360.
    """
    options = {
        "hidden_size": 4,
        "intermediate_size": 2,
        "num_experts": 3,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "eos_token_id": 2,
        "vocab_size": 5,
    }
    assert operations(1, 1, options) == (576, 360)
    assert operations(2, 3, options) == (3 * 576, 3 * 2 * 360)


class Hungry(torch.nn.Module):
    """Holds 3 MiB at once, after 2 MiB that are gone by then; the weight's own 4 bytes are not counted."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, input_ids, labels):
        torch.ones(2 * 2**18)
        held = [torch.ones(2**18) for _ in range(3)]
        return type("Output", (), {"loss": self.weight * held[0][0]})


def test_the_peak_is_what_is_held_at_once():
    assert abs(peak_bytes(Hungry(), torch.zeros(1, dtype=torch.long), "cpu") - 3 * 2**20) < 1024
