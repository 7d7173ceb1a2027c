"""What must not leave this machine, taken out of every text."""
