"""Find out whether a server answers, with one request and a few seconds to wait."""

import threading
from collections.abc import Callable

from olmoe_ft.reasons import one_line

DOWN = (500, 502, 503, 504)  # answers of a server that is down


def why_no_answer(ask: Callable[[], object], seconds: float) -> str | None:
    """Ask a server in a separate thread, since looking up its name can take longer than the timeout of a request.

    Args:
        ask: sends one request; raises an error if there is no answer.
        seconds: how long to wait.
    Returns:
        the reason in one line; None if the server answered.
    """
    found: list[str | None] = []

    def answer() -> None:
        try:
            ask()
        except Exception as error:  # a proxy, a resolver, a certificate or a URL can raise anything
            found.append(one_line(error))
        else:
            found.append(None)

    asking = threading.Thread(target=answer, daemon=True)
    asking.start()
    asking.join(seconds)
    return found[0] if found else f"no answer in {seconds:.0f} s"
