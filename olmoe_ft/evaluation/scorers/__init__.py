"""How an output is marked: one file each, as functions that a task file of lm-eval names.

    process_results: !function olmoe_ft.evaluation.scorers.number.process_results

Each takes a row of the task and the outputs for it, of which it reads the first, and returns values by metric.
"""
