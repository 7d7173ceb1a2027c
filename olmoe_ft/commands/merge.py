"""Fold an adapter into its base: what can be wrong is said before torch is imported and anything is written."""

import os
from pathlib import Path

from olmoe_ft.checkpoints.folders import check_weights, load_config, resolve_checkpoint
from olmoe_ft.recipe import UserError

DTYPES = ("auto", "float32", "bfloat16")


def merge_checkpoint(checkpoint: str, to: Path, dtype: str = "auto") -> None:
    """Write a checkpoint that stock transformers loads, a layer at a time; of a run with its model card.

    Args:
        checkpoint: a run directory or checkpoint folder, with or without adapter.
        to: the folder to write; must not exist.
        dtype: "float32", "bfloat16", or "auto" for the checkpoint's own.
    Raises:
        UserError: the folder is there, there is no such checkpoint or dtype, or weights are damaged.
    """
    if os.path.lexists(to):
        there = "exists already" if to.exists() else f"is a link to {to.readlink()}, which is not there"
        raise UserError(f"{to} {there}; name a new folder")
    if (taken := next((place for place in to.parents if place.is_file()), None)) is not None:
        raise UserError(f"{taken} is a file, so there can be no folder {to}; name another")
    if dtype not in DTYPES:
        raise UserError(f"--dtype: found {dtype}; allowed: {', '.join(DTYPES)}; choose one of them")
    check_weights(folder := resolve_checkpoint(checkpoint))
    config = load_config(folder)
    from olmoe_ft.adapters.merge import merge
    from olmoe_ft.data.tokenizer import load_tokenizer

    merge(folder, load_tokenizer(folder, config.vocab_size), to, dtype)
    run = Path(folder).parent
    if Path(folder).name == "final" and (run / "recipe.yaml").exists():
        from olmoe_ft.report.card import write_card

        write_card(run, to)
