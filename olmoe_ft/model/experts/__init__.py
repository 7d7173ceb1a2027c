"""How the experts of a layer really run."""
