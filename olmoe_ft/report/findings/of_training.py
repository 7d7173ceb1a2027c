"""Findings on the curves of a run: losses, updates, routers, memory."""

import math
from collections.abc import Iterator

import numpy as np
from safetensors import SafetensorError, safe_open

from olmoe_ft.constants import GIB
from olmoe_ft.report.amounts import finite
from olmoe_ft.report.files.data_report import mapping, note
from olmoe_ft.report.files.metrics import Values
from olmoe_ft.report.files.run_files import RunFiles
from olmoe_ft.report.page.blocks import Finding

NAMED = 6  # metrics that are not finite, by name
OVERFIT = 0.02  # above its minimum: more than an evaluation loss changes by chance between two evaluations
END = 0.1  # of the records, over which the last loss is a mean: a single batch may be an easy one
ROSE = 0.1  # of its fall, after which a loss has risen again
CERTAIN = 4.0  # times the change between two records: the least of many means of noise is lower than their last
MOVED = 0.5  # AdamW changes nearly all weights in every step, unless rounding loses its updates
BUSY = 3.0  # max_violation: an expert with four times the mean load, which an expert-parallel device would wait for
FLAT = 0.5  # of ln(experts), which is the entropy of a router that prefers no expert; the tiny runs end near 0.9
UNRELATED = 0.1  # of the way from the agreement of two unrelated routers to that of two equal ones
BEYOND_PLAN = 0.1  # a plan of memory is not more exact than that
EVALUATION_LOSS = "eval_loss"


def of_curves(run: RunFiles) -> Iterator[Finding]:
    """Numbers that are not finite, losses, and updates that are lost."""
    yield from _not_finite(run)
    yield from _loss(run)
    yield from _overfit(run)
    if "optim/moved" in run.metrics and len(moved := _finite(run.metrics["optim/moved"])):
        if (share := float(np.median(moved))) < MOVED:
            lost = "updates may be lost in rounding; raise training.learning_rate, or keep float32 weights"
            yield Finding("warn", f"Only {share:.1%} of the weights changed between two records; {lost}", "curves")


def _loss(run: RunFiles) -> Iterator[Finding]:
    """Whether it fell and stayed low, by the means of its first and last records; said by the last record, as its tile,
    where that agrees. What it changes from one record to the next may be chance."""
    name = "loss/task" if "loss/task" in run.metrics else "loss"
    if name not in run.metrics or len(losses := _finite(run.metrics[name])) < 2:
        return
    count = max(1, int(END * len(losses)))
    means, title = running_means(losses, count), "task loss" if name == "loss/task" else "loss"
    first, last, mean, least = float(losses[0]), float(losses[-1]), float(means[-1]), int(means.argmin())
    noise, highest = float(np.median(np.abs(np.diff(losses)))), max(first, float(means[0]))
    above = (losses[-count:] > means[least]).mean() > 0.5  # most of them: a single batch may be a hard one
    if above and mean - means[least] > max(ROSE * (highest - means[least]), CERTAIN * noise):
        steps = run.metrics[name].steps[np.isfinite(run.metrics[name].values)]
        place, of = f"step {steps[least + count - 1]:,}", f" (means of {count} records)" if count > 1 else ""
        text = f"The {title} was down to {means[least]:.4g} at {place} and rose to {mean:.4g} at the end{of}"
        yield Finding("warn", f"{text}: look at the gradient norm there, or lower training.learning_rate", "curves")
        return
    fell = mean < first
    end = f"{last:.4g} in the last" if (last < first) == fell else f"a mean of {mean:.4g} in the last {count}"
    if not fell:
        text = f"The {title} did not fall: {first:.4g} in the first record, {end}"
        yield Finding("warn", text, "curves")
    elif means[0] - mean < noise:
        changes = f"it changes by {noise:.2g} from one record to the next"
        text = f"The {title} did not fall by more than chance: {first:.4g} in the first record, {end}; {changes}"
        yield Finding("warn", text, "curves")
    else:
        yield Finding("good", f"The {title} fell from {first:.4g} in the first record to {end}", "curves")


def running_means(values: np.ndarray, count: int) -> np.ndarray:
    """The mean of each `count` neighbours; of huge numbers without overflow."""
    return np.lib.stride_tricks.sliding_window_view(values / count, count).sum(axis=1)


def _finite(values: Values) -> np.ndarray:
    return values.values[np.isfinite(values.values)]


def _not_finite(run: RunFiles) -> Iterator[Finding]:
    first = {
        name: int(values.steps[~np.isfinite(values.values)][0])
        for name, values in run.metrics.of.items()
        if not np.isfinite(values.values).all()
    }
    if first:
        named = ", ".join(f"{name} at step {step:,}" for name, step in sorted(first.items(), key=_by_step)[:NAMED])
        more = f" and {len(first) - NAMED} more metrics" if len(first) > NAMED else ""
        yield Finding("bad", f"Numbers that are not finite, where they first appear: {named}{more}", "curves")


def _by_step(one: tuple[str, int]) -> tuple[int, str]:
    return one[1], one[0]


def _overfit(run: RunFiles) -> Iterator[Finding]:
    if EVALUATION_LOSS not in run.metrics:
        return
    steps, losses = run.metrics[EVALUATION_LOSS]
    finite = np.isfinite(losses)
    steps, losses = steps[finite], losses[finite]
    if len(losses) > 1 and losses[-1] > (1 + OVERFIT) * losses.min():
        least = int(losses.argmin())
        yield Finding(
            "warn",
            f"The evaluation loss rose from its minimum of {losses[least]:.4g} at step {steps[least]:,} to "
            f"{losses[-1]:.4g} at step {steps[-1]:,}: the model may have begun to learn its rows by heart; train "
            "fewer steps, or set training.load_best_model_at_end",
            "curves",
        )


def of_routers(run: RunFiles) -> Iterator[Finding]:
    """The routers at the newest record."""
    metrics = run.metrics
    if (dead := metrics.last("router/dead_experts")) is not None and dead > 0:
        what = "1 expert" if dead == 1 else f"{dead:,.0f} experts, all layers together,"
        yield Finding("warn", f"{what} had no token in the newest record", "experts")
    if (violation := metrics.last("router/max_violation")) is not None and violation > BUSY:
        text = f"The busiest expert has {1 + violation:.1f} times the mean load of its layer"
        yield Finding("warn", f"{text}; raise router.load_balancing_coef", "experts")
    if (shape := _shape(run)) is None:
        return
    experts, chosen = shape
    entropy, most = metrics.last("router/entropy"), math.log(experts)
    if entropy is not None and entropy < FLAT * most and entropy < (first := metrics["router/entropy"].values[0]):
        text = f"The routers' entropy fell from {first:.2f} to {entropy:.2f}, of at most {most:.2f} nats"
        yield Finding("warn", f"{text}: a token's choices depend on few experts", "experts")
    agreement, chance = metrics.last("router/drift_agreement"), chosen / experts
    from_random = mapping(run.recipe.get("model")).get("config") is not None
    if agreement is not None and not from_random and agreement < chance + UNRELATED * (1 - chance):
        text = f"The routers choose {agreement:.0%} of the experts that they chose at the start"
        yield Finding("warn", f"{text}; unrelated routers would agree on {chance:.0%}", "experts")


def _shape(run: RunFiles) -> tuple[int, int] | None:
    """How many experts a layer has, and how many a token chooses, by the probe of the routers."""
    file = run.path / "routing_probe.safetensors"
    if not file.is_file():
        return None
    try:
        with safe_open(str(file), "numpy") as tensors:
            experts, chosen = int(tensors.get_tensor("experts")), tensors.get_slice("start").get_shape()[-1]
    except (SafetensorError, OSError, ValueError, TypeError, IndexError):
        note(run, f"{file} cannot be read")
        return None
    return (experts, chosen) if 0 < chosen < experts else None


def of_memory(run: RunFiles) -> Iterator[Finding]:
    """Memory beyond the plan. On a CPU the measured figure is that of the whole process, and is not compared."""
    plan = run.plan or {}
    planned = finite(mapping(plan.get("memory")).get("peak"))
    if not plan.get("gpu") or not planned or "perf/peak_memory_gib" not in run.metrics:
        return
    peak = float(_finite(run.metrics["perf/peak_memory_gib"]).max(initial=0.0))
    if peak > (1 + BEYOND_PLAN) * planned / GIB:
        beyond = f"{peak * GIB / planned - 1:.0%} above the planned {planned / GIB:.1f} GiB"
        yield Finding("warn", f"Peak memory of a device was {peak:.1f} GiB, {beyond}", "planned")
