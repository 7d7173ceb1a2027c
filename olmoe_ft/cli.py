"""The command line: one short function a command. Heavy imports are inside the commands, so `--help` is instant."""

import json
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from olmoe_ft.commands.compare import compare
from olmoe_ft.commands.evaluation import evaluate, samples
from olmoe_ft.commands.push import push
from olmoe_ft.commands.recipes import recipes_app
from olmoe_ft.commands.report import report
from olmoe_ft.commands.sweep import sweep
from olmoe_ft.ending import exit_with_reason, let_no_text_fail
from olmoe_ft.ranks import is_first
from olmoe_ft.recipe import UserError, load_recipe

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Fine-tune OLMoE with YAML recipes: SFT, then DPO or KTO, on one CPU, one GPU or many machines.",
    epilog="Start here: olmoe-ft train tiny/sft, then olmoe-ft chat runs/tiny-sft",
)

app.add_typer(recipes_app, name="recipes")

RecipePath = Annotated[
    str, typer.Argument(help="A recipe: a file, or one that comes with olmoe-ft, e.g. tiny/sft.", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="Values to change, as section.key=value, e.g. training.learning_rate=1e-5.", show_default=False
    ),
]


@app.command()
def train(
    recipe: RecipePath,
    overrides: Overrides = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over; a run of that name is kept as runs/<name>.before.")
    ] = False,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            help="Continue although this has changed: data, model, tokenizer, libraries, processes (several with "
            "commas). code: read pickles that may run code.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Train a recipe into runs/<name>/, continuing from its newest whole checkpoint where it was stopped.

    Tracking, logging, saving, evaluation and the number of steps may change when it goes on.

    On several devices: accelerate launch --config_file configs/accelerate/zero3.yaml -m olmoe_ft train RECIPE …
    """
    from olmoe_ft.recipe.changes import Restart

    restart = Restart.of(fresh, accept or ())
    loaded = load_recipe(recipe, overrides or ())
    from olmoe_ft.data.terminal import say
    from olmoe_ft.recipe.check import notes

    if is_first():
        for note in notes(loaded):
            say(note)
    from olmoe_ft import pipeline

    pipeline.run(loaded, restart)


@app.command()
def validate(
    recipes: Annotated[list[str], typer.Argument(help="Recipes to check.")],
    accelerate: Annotated[
        str | None,
        typer.Option(help="Where they are to run, e.g. configs/accelerate/gpu.yaml.", show_default="anywhere"),
    ] = None,
) -> None:
    """Check recipes without loading anything: keys, types, combinations; says all that is wrong at once."""
    from olmoe_ft.data.terminal import say
    from olmoe_ft.validation import check_recipes

    for line in check_recipes(recipes, accelerate):
        say(line)
    print(f"{len(recipes)} recipe(s) are right")


@app.command()
def plan(
    recipe: RecipePath,
    overrides: Overrides = None,
    accelerate: Annotated[
        str | None,
        typer.Option(help="Where it is to run, e.g. configs/accelerate/zero3.yaml.", show_default="all shapes"),
    ] = None,
    devices: Annotated[
        int | None, typer.Option(help="Devices that train together.", min=1, show_default="8; of a small network 1")
    ] = None,
    device_memory: Annotated[float, typer.Option(help="Memory of a device, in GiB.", min=0)] = 80,
    tflops: Annotated[
        float | None,
        typer.Option(help="TFLOP/s a GPU is taken to reach.", min=0.1, show_default="360, 45% of an H100's 798"),
    ] = None,
    bandwidth: Annotated[
        float | None,
        typer.Option(help="GB/s between GPUs.", min=0.1, show_default="300 in a computer, 50 between several"),
    ] = None,
) -> None:
    """Look at a recipe's data; say its steps, tokens, memory and disk, and which machine shape is fastest.

    Loads no weights, trains nothing.

    One card of 24 GiB: olmoe-ft plan RECIPE --devices 1 --device-memory 24
    """
    loaded = load_recipe(recipe, overrides or ())
    from olmoe_ft.planning.command import print_plans

    print_plans(loaded, accelerate, devices, device_memory, tflops, bandwidth)


@app.command()
def prepare(
    recipe: RecipePath,
    overrides: Overrides = None,
    to: Annotated[
        str | None, typer.Option(help="The folder to keep the rows in, as data.cache.", show_default="data.cache")
    ] = None,
) -> None:
    """Read, audit and tokenize a recipe's rows once, on a CPU, so that a launch on GPUs starts at once.

    The launch finds them in the same folder: olmoe-ft prepare RECIPE --to /disk/rows, then train with
    data.cache=/disk/rows.
    """
    loaded = load_recipe(recipe, [*(overrides or ()), *([f"data.cache={json.dumps(to)}"] if to is not None else [])])
    from olmoe_ft import pipeline

    pipeline.prepare(loaded)


@app.command()
def launch(
    recipe: RecipePath,
    overrides: Overrides = None,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="As a SLURM job, the one batch system that is supported.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the job's file; submit nothing.")] = False,
    accelerate: Annotated[
        str | None,
        typer.Option(
            help="How it is to train, e.g. configs/accelerate/zero3.yaml.", show_default="the first of `plan`"
        ),
    ] = None,
    devices: Annotated[
        int | None, typer.Option(help="GPUs of all computers together.", min=1, show_default="the file's on each")
    ] = None,
    nodes: Annotated[int | None, typer.Option(help="Computers.", min=1, show_default="the file's")] = None,
    sbatch: Annotated[
        list[str] | None, typer.Option(help="An option of sbatch, e.g. partition=gpu; can be repeated.")
    ] = None,
) -> None:
    """Train a recipe as a job of SLURM that goes back into the queue until the run has finished.

    Time, memory and the time to save are those of `olmoe-ft plan`; NAME-OF-THE-RUN.sbatch is written and submitted.
    The file is configs/slurm/one_node.sbatch or nodes.sbatch, filled in; see docs/slurm.md.

    olmoe-ft launch --slurm RECIPE --accelerate configs/accelerate/zero3.yaml --devices 8 --sbatch partition=gpu
    """
    if not slurm:
        raise UserError(
            "launch: found no --slurm; add it to submit a SLURM job, or train on this computer with `olmoe-ft train`"
        )
    loaded = load_recipe(recipe, overrides or ())
    from olmoe_ft.commands.launch import make_job, show_job, submit_job

    text = make_job(loaded, [recipe, *(overrides or ())], accelerate, devices, nodes, sbatch or ())
    if dry_run:
        show_job(text)
    else:
        submit_job(loaded, text)


@app.command("merge")
def merge_adapter(
    checkpoint: Annotated[str, typer.Argument(help="A run directory or checkpoint folder, with or without adapter.")],
    to: Annotated[Path, typer.Option(help="The folder to write; must not exist.")],
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, or auto for the checkpoint's own.")] = "auto",
) -> None:
    """Fold an adapter into its base and write a checkpoint that stock transformers loads, a layer at a time."""
    from olmoe_ft.commands.merge import merge_checkpoint
    from olmoe_ft.data.terminal import say

    merge_checkpoint(checkpoint, to, dtype)
    say(f"merged into {to}/")


@app.command()
def chat(
    model: Annotated[str, typer.Argument(help="A run directory or checkpoint folder, with or without adapter.")],
    prompt: Annotated[str | None, typer.Option(help="Answer this one prompt and exit.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="The longest answer, in tokens.", min=1)] = 256,
) -> None:
    """Talk to a model; greedy decoding. Without --prompt it asks for turns until an empty line."""
    from olmoe_ft.checkpoints.folders import check_weights, load_config, resolve_checkpoint

    check_weights(folder := resolve_checkpoint(model))
    load_config(folder)
    from olmoe_ft.chat import answer_once, converse
    from olmoe_ft.data.terminal import printable

    if prompt is not None:
        answer = answer_once(model, prompt, max_new_tokens)
        print(printable(answer) if sys.stdout.isatty() else answer)  # a file gets what the model wrote
    else:
        converse(model, max_new_tokens)


app.command()(evaluate)
app.command()(samples)
app.command()(report)
app.command()(sweep)
app.command()(compare)
app.command()(push)


@app.command()
def verify(
    run: Annotated[str, typer.Argument(help="A run directory, or one checkpoint in it.", show_default=False)],
) -> None:
    """Read all that a run has left, and compare it with the checksums it was written with. Exits with 2 if damaged."""
    from olmoe_ft.checkpoints.verify import refuse_damage
    from olmoe_ft.checkpoints.verify import verify as verify_run
    from olmoe_ft.data.terminal import printable

    found = verify_run(run)
    for place, damage, note in found:
        print(printable(f"{place}: {damage and f'damaged: {damage}' or note or 'whole'}"))
    refuse_damage(found)


@app.command()
def doctor() -> None:
    """Print what a bug report needs to say of this machine, and what of it will slow a run or break it."""
    from olmoe_ft.doctor.report import print_report

    print_report()


def main() -> None:
    """Run the command line; a mistake in a recipe, its data or the arguments is one sentence and exit code 2."""
    let_no_text_fail()
    # libraries announce to each other what they will rename; nothing a user could change
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        app()
    except Exception as error:
        exit_with_reason(error)
        raise
