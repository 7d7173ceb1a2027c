"""The commands `evaluate` and `samples`: what they take. What they do is in evaluate.py and samples.py."""

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    models: Annotated[list[str], typer.Argument(help="Runs, checkpoints, adapters or Hub names.", show_default=False)],
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            help="Tasks, with commas or repeated: a name that comes with olmoe-ft (skills, gsm8k_rows, …) or with "
            "lm-eval, a task file (.yaml), or a file of rows with a prompt and an answer. NAME=FILE puts a file of "
            "yours in the place of a task's rows.",
            show_default="those of the run's recipe",
        ),
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="olmoe: the columns of the OLMoE paper's table, and its values.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Questions of each task, from its start.", min=1)] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Questions that each process answers at once.", min=1, show_default="64")
    ] = None,
    chat: Annotated[
        bool | None,
        typer.Option("--chat/--no-chat", help="Use the chat template.", show_default="where the model brings one"),
    ] = None,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Run code that the model writes (HumanEval). Do it in a container.")
    ] = False,
    engine: Annotated[
        str, typer.Option(help="olmoe_ft, or vllm where it is installed: compared on 50 questions of each task first.")
    ] = "olmoe_ft",
    to: Annotated[Path | None, typer.Option(help="A folder for the results.", show_default="beside each model")] = None,
) -> None:
    """Put tasks to models: one table side by side, evaluation.json and samples.jsonl beside each model.

    Is it better? olmoe-ft evaluate runs/tiny-sft runs/tiny-dpo --tasks skills

    GSM8K from a file: olmoe-ft evaluate RUN --tasks gsm8k_rows=gsm8k_test.jsonl

    On several devices: accelerate launch --config_file configs/accelerate/zero2.yaml -m olmoe_ft evaluate …
    """
    from olmoe_ft.commands.evaluate import evaluate_models

    how = {"limit": limit, "batch_size": batch_size, "chat": chat, "allow_code": allow_code or None}
    evaluate_models(models, tasks or (), suite, to, engine, **how)


def samples(
    run: Annotated[str, typer.Argument(help="A run directory or checkpoint that was evaluated.", show_default=False)],
    other: Annotated[
        str | None, typer.Argument(help="A second one, to see both side by side.", metavar="RUN2", show_default=False)
    ] = None,
    wrong: Annotated[bool, typer.Option("--wrong", help="Only questions with a wrong answer, of either.")] = False,
    task: Annotated[str | None, typer.Option(help="Only this task, or group of tasks.", show_default="all")] = None,
    step: Annotated[
        int | None, typer.Option(help="The evaluation of this step of the run.", show_default="the newest")
    ] = None,
    limit: Annotated[int, typer.Option(help="How many to show.", min=1)] = 10,
) -> None:
    """Show questions of an evaluation: prompt, output, what was expected, and which experts were busiest.

    Two runs: first the questions that only one of them has right.
    """
    from olmoe_ft.commands.samples import show_one, show_two

    if other is None:
        show_one(run, wrong, task, step, limit)
    else:
        show_two(run, other, wrong, task, step, limit)
