"""DeepSpeed's converter to universal checkpoints, as a program that reads pickles as strictly as its caller."""

import os

from deepspeed.checkpoint.ds_to_universal import main, parse_arguments

from olmoe_ft.checkpoints.pickles import FORCED, without_code

if __name__ == "__main__":
    with without_code(trusted=FORCED not in os.environ):
        main(parse_arguments())
