"""What the modules and weights of the network are called, in its own checkpoints and in published ones.

A published checkpoint has a tensor for each expert and projection, `mlp.experts.3.gate_proj.weight`; the network has
two stacks a layer, `mlp.experts.gate_up_proj` (E, 2I, H) and `mlp.experts.down_proj` (E, H, I).
"""

ROUTER = "mlp.gate"  # in a layer, as all that follow
ROUTER_WEIGHT = f"{ROUTER}.weight"
EXPERTS = "mlp.experts"
GATE_UP, DOWN = "gate_up_proj", "down_proj"
STACKS = GATE_UP, DOWN  # of the experts
PUBLISHED = {GATE_UP: ("gate_proj", "up_proj"), DOWN: ("down_proj",)}  # of a stack: an expert's projections, in order
ATTENTION = "self_attn"
ATTENTION_PROJECTIONS = "q_proj", "k_proj", "v_proj", "o_proj"
NORMS = "input_layernorm", "post_attention_layernorm"

EMBEDDING, HEAD = "embed_tokens", "lm_head"


def published_weight(block: str, expert: int, projection: str) -> str:
    """The published name of an expert's weight: `model.layers.0.mlp.experts` -> `model.layers.0.mlp.experts.3....`."""
    return f"{block}.{expert}.{projection}.weight"
