"""What a person should know of a run before anything else, as sentences."""
