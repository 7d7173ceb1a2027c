"""Rows in any known format -> conversations or preference pairs -> one mixture; and the tokenizer."""
