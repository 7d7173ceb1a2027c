"""Commands that are more than one call of what is below them."""
