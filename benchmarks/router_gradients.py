"""Is the router's gradient the same on every machine? One optimizer step on the same micro-batches, many ways.

    python benchmarks/router_gradients.py    # prints the tables of docs/router-objective.md: six minutes on 2 cores

How a step is taken and its gradient read: tests/support/step_gradients.py.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.step_gradients import deviation, gradients, run_cases, strength  # noqa: E402
from support.training_cases import SHAPES, Case, product_of_modes, splits  # noqa: E402


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print_modes(folder)
        print_splits(folder)
        print_strengths(folder)


def print_modes(folder: Path) -> None:
    cases = product_of_modes()
    run_cases([*cases, *(case.reference for case in cases)], folder)
    shapes = list(dict.fromkeys(case.shape for case in cases))
    print("| stage | weights | rows | checkpointing |", " | ".join(shapes), "|")
    print("|---|---|---|---|" + "---|" * len(shapes))
    for case in cases[:: len(shapes)]:
        found = [
            deviation(gradients(replace(case, shape=shape), folder), gradients(case.reference, folder))
            for shape in shapes
        ]
        print(
            f"| {case.stage} | {case.form} | {case.layout} | {case.checkpointing} |",
            " | ".join(f"{value:.1e}" for value in found),
            "|",
        )


def print_splits(folder: Path) -> None:
    pairs = splits()
    run_cases([case for pair in pairs for case in pair], folder)
    print("| stage | machine | a micro-batch split over its processes, balanced over ranks |")
    print("|---|---|---|")
    for split, whole in pairs:
        found = deviation(gradients(split, folder), gradients(whole, folder))
        print(f"| {split.stage} | {split.shape} | {found:.1e} |")


def print_strengths(folder: Path) -> None:
    stacks = ("olmoe_ft", "trl", "transformers")
    ways = [
        *((shape, "none") for shape in SHAPES),
        ("1 process", "non_reentrant"),
        ("1 process", "reentrant"),
        ("ZeRO-3", "reentrant"),
    ]
    cases = [Case(shape=shape, checkpointing=mode, stack=stack) for shape, mode in ways for stack in stacks]
    run_cases([*cases, *(replace(case, coefficient=0.0) for case in cases)], folder)
    print("| machine | checkpointing |", " | ".join(stacks), "|")
    print("|---|---|" + "---|" * len(stacks))
    for shape, mode in ways:
        found = [strength(Case(shape=shape, checkpointing=mode, stack=stack), folder) for stack in stacks]
        print(f"| {shape} | {mode} |", " | ".join(f"{multiple:.4f} ({rest:.0e})" for multiple, rest in found), "|")


if __name__ == "__main__":
    main()
