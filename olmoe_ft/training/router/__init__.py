"""The router objective inside TRL's trainers: the loss, over whose tokens, is its gradient alive, what routing does."""
