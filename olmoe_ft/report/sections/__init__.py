"""The sections of a run's page: each a function from a run's files to blocks."""
