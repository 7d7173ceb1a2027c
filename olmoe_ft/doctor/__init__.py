"""`olmoe-ft doctor`: what a bug report should say about a machine, and what will slow down or break a run on it."""
