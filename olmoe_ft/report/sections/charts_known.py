"""Which metrics share a chart, under which title, and what to know of them. A metric that is not here has its own."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Chart:
    """One chart, of whichever of its metrics a run has."""

    title: str
    names: tuple[str, ...]
    """As in `metrics.jsonl`. The same metrics of the evaluation rows, `eval_…`, are points of this chart."""
    note: str = ""
    unit: str = ""
    smooth: bool = True


LEARNING = (
    Chart(
        "Loss", ("loss", "loss/task"), "The total that is optimised, and the task's part; the rest is router losses."
    ),
    Chart(
        "Preference rewards",
        ("rewards/chosen", "rewards/rejected", "rewards/margins"),
        "beta times how much likelier an answer became than under the reference; the margin is their difference.",
    ),
    Chart(
        "Preferences learned",
        ("rewards/accuracies",),
        "The share of pairs in which the chosen answer has the higher reward.",
    ),
    Chart(
        "Estimate of the KL divergence",
        ("kl",),
        "How much likelier answers to other prompts became than under the reference; each answer is compared with it.",
        "nats",
    ),
    Chart("Log-probability of answers", ("logps/chosen", "logps/rejected"), unit="nats"),
    Chart("Token accuracy", ("mean_token_accuracy",), "The share of learned tokens that are the model's first choice."),
    Chart("Uncertainty of tokens", ("entropy",), "Entropy of the model's next-token distribution.", "nats"),
    Chart("Gradient norm", ("grad_norm",), "Before clipping."),
    Chart("Learning rate", ("learning_rate",), smooth=False),
    Chart(
        "Weights that changed",
        ("optim/moved",),
        "The share of a sample of the trained weights that changed since the last record; near 0, updates are lost.",
    ),
)
ROUTERS = (
    Chart(
        "Load balance of routers",
        ("router/load_balancing_loss",),
        "The raw loss, before its coefficient; 1 is perfect balance in each layer (scope: layer).",
    ),
    Chart("Size of router logits", ("router/z_loss",), "The raw z-loss, before its coefficient."),
    Chart("Router losses in the total", ("router/loss",), "Both losses, each times its coefficient."),
    Chart(
        "Certainty of routers",
        ("router/entropy",),
        "Entropy of the routers' probabilities, mean of all layers; ln(experts) is no preference.",
        "nats",
    ),
    Chart(
        "Busiest expert",
        ("router/max_violation",),
        "Its load over the mean, less 1, in the worst layer: 0 is balance, 1 is twice the mean.",
    ),
    Chart("Experts without a token", ("router/dead_experts",), "Of all layers, since the last record.", smooth=False),
    Chart(
        "Choices kept since the start",
        ("router/drift_agreement",),
        "The share of a fixed probe's expert choices that are those of the starting model.",
    ),
)
SPEED = (
    Chart(
        "Tokens per second", ("perf/tokens_per_second",), "Of all processes, without evaluation and saving.", "tokens/s"
    ),
    Chart(
        "Use of the device", ("perf/mfu",), "Model FLOP/s as a share of the matrix rate measured at the start (MFU)."
    ),
    Chart("Padding", ("perf/padding",), "The share of places that held no token."),
    Chart(
        "Peak memory",
        ("perf/peak_memory_gib",),
        "Of the first process: the device's allocator, or on a CPU the whole process.",
        "GiB",
        smooth=False,
    ),
)
RARE = (
    Chart("Logits of answers", ("logits/chosen", "logits/rejected")),
    Chart("Tokens so far", ("num_tokens",), "Prompts are counted, and of a pair both sides.", smooth=False),
    Chart("Epoch", ("epoch",), smooth=False),
    Chart("Seconds of an evaluation", ("runtime", "model_preparation_time"), unit="s", smooth=False),
    Chart("Evaluation rows per second", ("samples_per_second",), smooth=False),
    Chart("Evaluation steps per second", ("steps_per_second",), smooth=False),
    Chart("Tokens in router statistics", ("router/tokens",), "Of one record."),
)
TOTALS = ("train_loss", "train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos")
"""What transformers records once, when a run ends."""
