"""The parameters of an OLMoE network."""

from typing import Any

from transformers import PreTrainedConfig


class OlmoeConfig(PreTrainedConfig):
    """Sizes and switches of OLMoE, under the names of its documentation and of a released `config.json`.

    The defaults are the documented ones. The released OLMoE-1B-7B checkpoints differ from them in one size:
    their `intermediate_size` is 1024.

    `rope_theta` and `rope_scaling` may be given as keywords; they become `rope_parameters`
    (`{"rope_type": …, "rope_theta": …, "factor": …}`), the form transformers 5 keeps and saves.

    Raises:
        ValueError: when sizes contradict each other.
    """

    model_type = "olmoe"
    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {"num_local_experts": "num_experts"}

    vocab_size: int = 50304
    hidden_size: int = 2048
    intermediate_size: int = 2048
    num_hidden_layers: int = 16
    num_attention_heads: int = 16
    num_key_value_heads: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 4096
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-5
    use_cache: bool = True
    pad_token_id: int | None = 1
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = 50279
    tie_word_embeddings: bool = False
    rope_parameters: dict | None = None  # a dict once built
    attention_bias: bool = False
    attention_dropout: float = 0.0
    clip_qkv: float | None = None
    num_experts_per_tok: int = 8
    num_experts: int = 64
    output_router_logits: bool = False
    router_aux_loss_coef: float = 0.01
    norm_topk_prob: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        if self.num_key_value_heads is None:  # multi-head attention: every query head has its own key head
            self.num_key_value_heads = self.num_attention_heads
        super().__post_init__(**kwargs)
        self._check_sizes()

    def _check_sizes(self) -> None:
        assert self.num_key_value_heads is not None
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} must be a multiple of num_attention_heads={self.num_attention_heads}"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads={self.num_attention_heads} must be a multiple of "
                f"num_key_value_heads={self.num_key_value_heads}"
            )
        if not 1 <= self.num_experts_per_tok <= self.num_experts:
            raise ValueError(
                f"num_experts_per_tok={self.num_experts_per_tok} must lie in 1 to num_experts={self.num_experts}"
            )
