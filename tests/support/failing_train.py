"""`python fails.py KIND RANK train RECIPE …`: olmoe-ft, which fails on this rank alone, just before its first step."""

import os
import signal
import sys
import time

import torch
from transformers import Trainer

from olmoe_ft.ending import program
from olmoe_ft.recipe import RecipeError

kind, rank = sys.argv[1:3]
del sys.argv[1:3]
train = Trainer.train


def fail(*arguments, **named):
    if os.environ.get("RANK", "0") != rank:
        return train(*arguments, **named)
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "hangs":
        time.sleep(3600)
    if kind == "option":
        torch.optim.AdamW([], lr=1.0)  # a library refuses what it was given
    if kind == "mistake":
        raise RecipeError("found by one process alone")
    raise KeyError("a fault of the program")


Trainer.train = fail
program()
