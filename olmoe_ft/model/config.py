"""The parameters of an OLMoE network."""

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeGuard

from transformers import PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from olmoe_ft.model.implementations import attention_implementation, experts_implementation

SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "num_experts_per_tok",
    "num_experts",
)
FLOATS = ("initializer_range", "rms_norm_eps", "attention_dropout", "clip_qkv", "router_aux_loss_coef")
FLAGS = ("use_cache", "tie_word_embeddings", "attention_bias", "output_router_logits", "norm_topk_prob")


class OlmoeConfig(PreTrainedConfig):
    """Sizes and switches of OLMoE, under the names of its documentation and of a released `config.json`.

    The defaults are the documented ones. The released OLMoE-1B-7B checkpoints differ from them in one size: their
    `intermediate_size` is 1024.

    The documented `rope_theta` and `rope_scaling` (`{"type": "linear" | "dynamic", "factor": > 1}`) are accepted, read
    and set under those names; they are kept and saved as `rope_parameters`
    (`{"rope_type": …, "rope_theta": …, "factor": …}`), the form of transformers 5. Where both say something, the
    keyword wins over the entry of `rope_parameters`.

    Raises:
        ValueError: for an impossible value, with the field's name, the value and what would be possible. Checked on
            creation, on loading, and again by `validate` when a network is built from the config or it is saved.
    """

    model_type = "olmoe"
    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {"num_local_experts": "num_experts"}

    vocab_size: int = 50304
    hidden_size: int = 2048
    intermediate_size: int = 2048
    num_hidden_layers: int = 16
    num_attention_heads: int = 16
    num_key_value_heads: int | None = None  # None: multi-head attention, as many as query heads
    hidden_act: str | Callable = "silu"  # a name transformers knows, or a function (which cannot be saved)
    max_position_embeddings: int = 4096
    initializer_range: float = 0.02  # standard deviation of every weight matrix
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
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        for name in FLOATS:  # 8 is saved as 8.0: transformers refuses an integer there
            if type(value := getattr(self, name)) is int:
                setattr(self, name, float(value))
        theta, scaling = kwargs.pop("rope_theta", None), kwargs.pop("rope_scaling", None)
        self.rope_parameters = _rope_parameters(self.rope_parameters or {}, theta, scaling)
        super().__post_init__(**kwargs)
        self.validate()

    @property
    def rope_theta(self) -> float:
        return self.rope_parameters["rope_theta"] if self.rope_parameters else self.default_theta

    @rope_theta.setter
    def rope_theta(self, value: float) -> None:
        self.rope_parameters = _rope_parameters(self.rope_parameters or {}, value, None)

    @property
    def rope_scaling(self) -> dict | None:
        """`{"type": …, "factor": …}`, or None where positions are not scaled."""
        rope = self.rope_parameters or {}
        if rope.get("rope_type", "default") == "default":
            return None
        rest = {key: value for key, value in rope.items() if key not in ("type", "rope_type", "rope_theta")}
        return {"type": rope["rope_type"], **rest}

    @rope_scaling.setter
    def rope_scaling(self, value: dict | None) -> None:
        self.rope_parameters = _rope_parameters({}, self.rope_theta, value)

    @classmethod
    def of(cls, config: PreTrainedConfig) -> "OlmoeConfig":
        """The config itself, or the same values from transformers' class."""
        if isinstance(config, cls):
            return config
        back_ends = {
            "attn_implementation": attention_implementation(config),
            "experts_implementation": experts_implementation(config),
        }
        return cls.from_dict(config.to_dict(), **{name: value for name, value in back_ends.items() if value})

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any):
        """As transformers', but parameters given beside the dict are checked like the dict's own."""
        ours = {*(field.name for field in fields(cls)), "rope_theta", "rope_scaling"} - {"dtype"}
        given = {name: kwargs.pop(name) for name in ours & kwargs.keys()}
        return super().from_dict({**config_dict, **given}, **kwargs)

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> None:
        if not isinstance(self.hidden_act, str):
            raise ValueError(f"hidden_act={self.hidden_act} is a function and cannot be saved: use a name, as 'silu'")
        super().save_pretrained(save_directory, push_to_hub, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        values = super().to_dict()
        if not isinstance(self.hidden_act, str):  # so that a config with a function can still be printed
            values["hidden_act"] = repr(self.hidden_act)
        return values

    def validate(self) -> None:
        """Raise `ValueError` at the first impossible value."""
        for name in SIZES:
            if type(value := getattr(self, name)) is not int or value < 1:
                raise ValueError(f"{name}={value!r} must be an integer of at least 1")
        for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
            ids = value if isinstance(value := getattr(self, name), list) and name == "eos_token_id" else [value]
            if any(each is not None and (type(each) is not int or each < 0) for each in ids):
                raise ValueError(f"{name}={value!r} must be a token id of at least 0, or None")
        for name in FLAGS:
            if type(value := getattr(self, name)) is not bool:
                raise ValueError(f"{name}={value!r} must be true or false")
        self._validate_heads_and_experts()
        self._validate_numbers()
        self._validate_positions()
        if self.hidden_act != "silu":  # the released one, which needs no table
            self._validate_activation()
        if self.pad_token_id is not None and not 0 <= self.pad_token_id < self.vocab_size:
            raise ValueError(
                f"pad_token_id={self.pad_token_id} must lie in 0 to vocab_size - 1 = {self.vocab_size - 1}"
            )

    def _validate_activation(self) -> None:
        from transformers.activations import ACT2FN  # takes a second to import

        function = callable(self.hidden_act) and not isinstance(self.hidden_act, type)
        if not function and self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act={self.hidden_act!r} is unknown; allowed: {', '.join(sorted(ACT2FN))}")

    def _validate_heads_and_experts(self) -> None:
        hidden, heads, key_heads = self.hidden_size, self.num_attention_heads, self.num_key_value_heads
        assert key_heads is not None
        if hidden % heads:
            raise ValueError(f"hidden_size={hidden} must be a multiple of num_attention_heads={heads}")
        if getattr(self, "head_dim", None) not in (None, hidden // heads):
            raise ValueError(f"head_dim={self.head_dim} must be hidden_size / num_attention_heads = {hidden // heads}")
        if hidden // heads % 2:
            raise ValueError(
                f"hidden_size={hidden} over num_attention_heads={heads} is a head of {hidden // heads}: rotary "
                f"embeddings turn pairs, so it must be even"
            )
        if heads % key_heads:
            raise ValueError(f"num_attention_heads={heads} must be a multiple of num_key_value_heads={key_heads}")
        if self.num_experts_per_tok > self.num_experts:
            raise ValueError(
                f"num_experts_per_tok={self.num_experts_per_tok} must lie in 1 to num_experts={self.num_experts}"
            )

    def _validate_numbers(self) -> None:
        def check(name: str, possible: Callable[[float], bool], what: str) -> None:
            value = getattr(self, name)
            if not is_number(value) or not possible(value):
                raise ValueError(f"{name}={value!r} must be {what}")

        check("initializer_range", lambda x: x >= 0, "a number of at least 0")
        check("rms_norm_eps", lambda x: x > 0, "a number above 0")
        check("attention_dropout", lambda x: 0 <= x < 1, "a number from 0 to below 1")
        check("router_aux_loss_coef", lambda x: x >= 0, "a number of at least 0")
        if self.clip_qkv is not None:
            check("clip_qkv", lambda x: x > 0, "a number above 0, or None")

    def _validate_positions(self) -> None:
        rope = self.rope_parameters or {}
        kind, theta, factor = rope.get("rope_type"), rope.get("rope_theta"), rope.get("factor")
        if not is_number(theta) or theta <= 0:
            raise ValueError(f"rope_theta={theta!r} must be a number above 0")
        if kind != "default" and kind not in ROPE_INIT_FUNCTIONS:
            known = ", ".join(["default", *ROPE_INIT_FUNCTIONS])
            raise ValueError(f"rope_scaling type={kind!r} is unknown; allowed: {known}")
        if kind in ("linear", "dynamic") and (not is_number(factor) or factor <= 1):
            raise ValueError(f"rope_scaling factor={factor!r} must be a number above 1 (type {kind!r})")
        try:
            self.validate_rope()  # transformers', for its further types
        except KeyError as error:
            raise ValueError(f"rope_scaling={rope}: {error.args[0]}") from error


def is_number(value: Any) -> TypeGuard[float]:
    return type(value) in (int, float) and math.isfinite(value)


def _rope_parameters(rope: dict, theta: float | None, scaling: dict | None) -> dict:
    """One dict from the newer and the documented spelling; the caller's dicts stay as they are.

    "type" is kept beside "rope_type", as transformers keeps it.
    """
    if scaling and not (isinstance(scaling, dict) and {"type", "rope_type"} & scaling.keys()):
        raise ValueError(f'rope_scaling={scaling!r} must be of the form {{"type": "linear", "factor": 2.0}}')
    if scaling:  # the older spelling says all but the base
        rope = {"rope_theta": rope.get("rope_theta", PreTrainedConfig.default_theta), **scaling}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if rope.get("type", kind) != kind:
        raise ValueError(f"rope_scaling type={rope['type']!r} contradicts rope_type={kind!r}")
    given = {} if theta is None else {"rope_theta": theta}
    return {"rope_theta": PreTrainedConfig.default_theta, **rope, "rope_type": kind, **given}
