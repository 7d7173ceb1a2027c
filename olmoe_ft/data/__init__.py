"""Rows in any known format -> conversations, pairs or judgements -> one mixture of token ids, with an audit.

The modules in the order of the data, from a file to a batch:

    locations, files, json_rows     a path -> rows, each with its place
    formats, pairs, judgements      a row -> messages; prompt, chosen and rejected; or prompt, answer and label, using
      reader, prompts, turns, content   which keys were read, and the parts of a row
      unread, suggest                   keys that were not read; hints for rows that are nearly of a known format
    sources, cache                  a source of the recipe -> converted rows, cached by content
    template, confined, tokens, length  messages -> text with marked answers -> token ids and labels, cut to length
    facts, prepare, mixture         rows with facts about each -> the mixed rows of a stage
    heldout, benchmarks, duplicates, words, questions     copies and held-out prompts in the rows
    audit, dropped, findings, report, terminal            numbers -> sentences -> screen and data_report.json
"""
