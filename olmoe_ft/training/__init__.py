"""A thin trainer per stage on TRL's, and what all stages share: run directory, runtime, tracking, answers."""
