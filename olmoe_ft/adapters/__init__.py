"""LoRA: what is adapted, and checkpoints that are a base and an adapter."""
