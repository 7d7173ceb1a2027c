"""The model card, and what goes to the Hub with it."""
