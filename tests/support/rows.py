"""Rows for tests of mixtures."""

ROWS = [{"prompt": f"say {number}", "completion": f"it is {number}"} for number in range(10)]
PAIRS = [{"prompt": f"say {n}", "chosen": f"{n} please", "rejected": f"{n}"} for n in range(10)]
