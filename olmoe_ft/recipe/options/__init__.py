"""All options of `training`: one table, the rules between options, and our names for other tools' keys.

`obeyed` and `refused` say what each field of TRL's configurations does, or why it is refused; `table` joins them.
`values` has ranges and choices. `schedules`, `optimizers`, `preferences`, `evaluation` and `combinations` have rules
between options, `device` what a machine must have, `hints` and `other_tools` what to write instead of another tool's
key. `document` writes docs/options.md. Imports neither torch nor transformers.
"""
