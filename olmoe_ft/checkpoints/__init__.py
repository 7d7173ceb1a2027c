"""Folders of weights: whole, or known not to be."""
