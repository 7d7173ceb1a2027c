"""What becomes of every option of `training`: one table, the rules between options, and names from other tools.

`obeyed` and `refused` say where each field of TRL's configurations acts, or why it may not; `table` joins them.
`values` has ranges and choices. `schedules`, `optimizers`, `preferences`, `evaluation` and `combinations` have what
options say about each other, `device` what a machine must have, `hints` and `other_tools` where a key of another tool
went. `document` writes docs/options.md. Imports neither torch nor transformers.
"""
