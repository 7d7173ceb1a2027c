"""What a person looks at: one page a run, several runs side by side, the model card. Reads files; needs no torch.

    files/       what a run has left, read as far as it goes
    sections/    a part of a run's page each: a function from a run's files to blocks;  findings/  the list on top
    comparison/  the same of several runs
    page/        blocks, and the one place where they become HTML;  private/  what is taken out of every text before
    card/        the model card, and what is sent to the Hub

`run_page`, `pipeline_page` and `comparison.comparison` put pages together; `written` writes them, `of_run` while a run
trains and when it ends.
"""
