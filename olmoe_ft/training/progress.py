"""The progress bar of a training run."""

from transformers import ProgressCallback

SHOWN = {"loss": "loss", "router/loss": "router", "rewards/accuracies": "accuracy", "perf/tokens_per_second": "tok/s"}


class ProgressBar(ProgressCallback):
    """Transformers' bar with the loss, the router's part of it and the speed behind it, instead of printed records."""

    def close(self) -> None:
        """Leave the bars as they are, with the next line for what is printed then."""
        for bar in (self.training_bar, self.prediction_bar):
            if bar is not None:
                bar.close()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.training_bar is not None and "loss" in logs:
            shown = {name: logs[key] for key, name in SHOWN.items() if key in logs}
            self.training_bar.set_postfix({name: f"{value:,.4g}" for name, value in shown.items()})
