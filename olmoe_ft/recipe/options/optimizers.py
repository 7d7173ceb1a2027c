"""Optimizers: which need a package, which arguments each takes, and which cannot train here."""

from collections.abc import Iterator

from olmoe_ft.recipe.options.given import Given
from olmoe_ft.recipe.wording import Problem, nearest, shown

LOW_RANK = (
    "supports only plain linear layers and would skip the stacked experts; to save memory use `lora`, or adamw_bnb_8bit"
)
IN_BACKWARD = (
    "changes weights during the backward pass, so gradients are neither summed over micro-batches nor clipped; "
    "to save memory use `lora`, or adamw_bnb_8bit"
)
TWO_SETS = (
    "keeps two sets of weights, and `final/` would get the raw weights instead of their average; "
    "use adamw_torch with lr_scheduler_type constant_with_warmup"
)
CANNOT = {
    "galore": LOW_RANK,
    "apollo": LOW_RANK,
    "lomo": IN_BACKWARD,
    "adalomo": IN_BACKWARD,
    "schedule_free": TWO_SETS,
}

# the module that an optimizer is imported from, and what to install or use
BITSANDBYTES = ("bitsandbytes", 'pip install "olmoe_ft[quantization]"')
TORCHAO = ("torchao", "pip install torchao")
PACKAGES = {
    "adamw_torch_4bit": TORCHAO,
    "adamw_torch_8bit": TORCHAO,
    "grokadamw": ("grokadamw", "pip install grokadamw"),
    "stable_adamw": ("optimi", "pip install torch-optimi"),
    "adamw_anyprecision": ("torchdistx", "use adamw_torch"),
    "adamw_torch_xla": ("torch_xla", "use adamw_torch"),
    "adamw_torch_npu_fused": ("torch_npu", "use adamw_torch"),
}
OF_BITSANDBYTES = ("paged_", "lion_", "ademamix", "rmsprop_bnb", "adamw_bnb", "adamw_8bit")

# what `optim_args` may hold; an optimizer that is not listed takes none
ARGUMENTS = {
    "sgd": ("momentum", "dampening", "weight_decay", "nesterov"),
    "adagrad": ("lr_decay", "weight_decay", "eps"),
    "rmsprop": ("momentum", "alpha", "eps", "weight_decay", "centered"),
    "ademamix": ("beta1", "beta2", "beta3", "alpha", "eps", "t_alpha", "t_beta3"),
    "adamw_torch_4bit": ("block_size", "bf16_stochastic_round"),
    "adamw_torch_8bit": ("block_size", "bf16_stochastic_round"),
    "grokadamw": ("alpha_init", "lamb", "gamma", "grokking_signal_decay_rate", "gradient_clipping"),
    "stable_adamw": ("decouple_lr", "max_lr", "kahan_sum"),
    "adamw_anyprecision": ("use_kahan_summation", "momentum_dtype", "variance_dtype", "compensation_buffer_dtype"),
}
FLAGS = ("nesterov", "centered", "bf16_stochastic_round", "decouple_lr", "kahan_sum", "use_kahan_summation")
WORDS = ("momentum_dtype", "variance_dtype", "compensation_buffer_dtype")
WITHOUT_MOMENTS = ("adafactor", "sgd", "adagrad", "rmsprop", "grokadamw")  # of Adam's kind
ADAM = ("adam_beta1", "adam_beta2", "adam_epsilon")


def package_of(optim: str) -> tuple[str | None, str]:
    """The extra module that an optimizer needs besides torch and transformers, and how to get it."""
    return BITSANDBYTES if optim.startswith(OF_BITSANDBYTES) else PACKAGES.get(optim, (None, ""))


def broken_optimizer(given: Given) -> Iterator[Problem]:
    """Mistakes in the optimizer and its arguments."""
    optim = given["optim"]
    for family, reason in CANNOT.items():
        if optim.startswith(family):
            yield "optim", f"found {shown(optim)}, which {reason}"
            return
    yield from _arguments(optim, given["optim_args"])


def _arguments(optim: str, text: str | None) -> Iterator[Problem]:
    known = list(ARGUMENTS.get("ademamix" if "ademamix" in optim else optim, ()))
    if text is None:
        return
    if not known:
        yield "optim_args", f"found {shown(text)}, but the optimizer {optim} takes no arguments; remove it"
        return
    arguments: dict[str, str] = {}
    for part in text.replace(" ", "").split(","):
        name, equals, value = part.partition("=")
        if not (equals and name and value):
            yield (
                "optim_args",
                f"found {shown(text)}; write `{known[0]}=…`, with commas between several; allowed: {', '.join(known)}",
            )
            return
        arguments[name] = value
    for name, value in arguments.items():
        if name not in known:
            yield (
                "optim_args",
                f"found {name}, which {optim} does not take{nearest(name, known)}; allowed: {', '.join(known)}",
            )
        elif name in FLAGS and value.lower() not in ("true", "false"):
            yield "optim_args", f"found {name}={value}; allowed: true, false"
        elif name not in (*FLAGS, *WORDS) and not _is_number(value):
            yield "optim_args", f"found {name}={value}; allowed: a number"
    momentum = arguments.get("momentum", "0")
    if arguments.get("nesterov", "").lower() == "true" and _is_number(momentum) and float(momentum) <= 0:
        yield "optim_args", "found nesterov=true without a momentum; write for example `momentum=0.9, nesterov=true`"


def unread_by_optimizer(given: Given) -> Iterator[Problem]:
    """Options of Adam that change nothing, because the optimizer does not use them."""
    optim = given["optim"]
    for name in ADAM:
        lion = "lion" in optim and name == "adam_epsilon"
        if given.changed(name) and (optim in WITHOUT_MOMENTS or optim.startswith("rmsprop") or lion):
            yield name, f"the optimizer {optim} does not use it"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
