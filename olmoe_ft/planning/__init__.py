"""What a recipe will need before it is launched: rows, tokens, steps, and memory per device, by part."""
