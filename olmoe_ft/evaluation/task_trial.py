"""Mark an output of a task before any model is loaded, so that what lm-eval cannot mark is found then."""

import warnings
from typing import Any

from olmoe_ft.reasons import one_line
from olmoe_ft.recipe import UserError

OUTPUTS: dict[str, Any] = {
    "generate_until": "",
    "loglikelihood": (-1.0, False),
    "loglikelihood_rolling": -1.0,
    "multiple_choice": (-1.0, False),
}


def refuse_failing(name: str, task: Any) -> None:
    """Put an empty output to the first question through a task's filters and lm-eval's metrics.

    A task that marks by a function of its own is left to it, and so is one that would run the output as a program.

    Raises:
        UserError: lm-eval cannot mark it.
    """
    if task.config.process_results is not None or getattr(task, "UNSAFE_CODE", False):
        return
    absent = [metric for metric, compute in task._metric_fn_list.items() if compute is None]
    if absent and task.OUTPUT_TYPE == "generate_until":  # the others go by the name alone
        raise UserError(
            f"{name}: its metric {absent[0]} of `evaluate` cannot be loaded; use another, or fetch it once where there "
            "is a network and bring the cache here (HF_HOME)"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _mark(task)
    except Exception as error:  # of lm-eval, a package that a metric needs, or the user's own functions
        if "HF_ALLOW_CODE_EVAL" in str(error):
            raise  # it has a sentence of its own
        raise UserError(
            f"{name}: an empty output cannot be marked ({one_line(error)}); correct `metric_list`, `filter_list` or "
            "`doc_to_target`"
        ) from error


def _mark(task: Any) -> None:
    from lm_eval.api.registry import aggregation_registry

    doc, kind = task.task_docs[0], task.OUTPUT_TYPE
    context = [""] * len(task.doc_to_choice(doc)) if task.multiple_input else ""
    made = task.construct_requests(doc, context, metadata=(task.config.task, 0, task.config.repeats))
    requests = made if isinstance(made, list) else [made]
    for request in requests:
        request.resps = [OUTPUTS[kind]] * task.config.repeats
    known = [how for _, how in aggregation_registry.items()]
    for pipeline in task._filters:
        pipeline.apply(requests)
        marks = task.process_results(doc, [request.filtered_resps[pipeline.name] for request in requests])
        for metric, mark in marks.items():
            how = task.aggregation().get(metric)
            if how in known:  # a user's own may need more questions
                how([mark, mark])
