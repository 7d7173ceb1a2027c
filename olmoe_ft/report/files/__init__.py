"""What a run has left: its files, read as far as they go."""
