"""What a person looks at: one page a run, several runs side by side, the model card. Reads files; needs no torch.

run_files -> one module a section, each a function from a run's files to blocks -> page: blocks to one HTML file
"""
