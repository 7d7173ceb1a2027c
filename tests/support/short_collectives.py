"""`python short_collectives.py train RECIPE …`: olmoe-ft, whose collectives may stay open for 15 seconds."""

from olmoe_ft.ending import program
from olmoe_ft.training import arguments

arguments.COLLECTIVE = 15
program()
