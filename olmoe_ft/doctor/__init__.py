"""`olmoe-ft doctor`: what a bug report needs to say of a machine, and what of it will slow a run or break it."""
