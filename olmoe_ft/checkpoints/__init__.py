"""Folders of weights and training state: what they hold, whether they are whole, and whether they may be read."""
