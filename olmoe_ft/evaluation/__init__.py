"""Questions put to a model, and how its answers are marked."""
