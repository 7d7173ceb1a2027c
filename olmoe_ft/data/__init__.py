"""Rows in any known format -> conversations or preference pairs -> one mixture of token ids; and an audit of it.

What reads what, from a file to a batch:

    locations, files, json_rows     a path -> rows, each with its place
    formats, pairs                  a row -> messages, or prompt, chosen and rejected; by way of
      reader, prompts, turns, content   which keys were read, and the parts of a row
      unread, suggest                   keys that nobody reads; rows that are nearly of a known form
    sources, cache                  a source of the recipe -> converted rows, kept by content
    template, confined, tokens, length  messages -> text with its answers marked -> token ids and labels, cut to length
    facts, prepare, mixture         rows with what is known of each -> the rows of a stage, mixed
    heldout, benchmarks, duplicates, words, questions     what else stands in the rows
    audit, dropped, findings, report, terminal            numbers -> sentences -> screen and data_report.json
"""
