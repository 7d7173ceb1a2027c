"""Whether a server answers, asked once and for a few seconds."""

import threading
from collections.abc import Callable

from olmoe_ft.reasons import one_line

DOWN = (500, 502, 503, 504)  # answers of a server that is not there for anyone


def why_no_answer(ask: Callable[[], object], seconds: float) -> str | None:
    """Ask a server in a thread of its own, since looking up a name can take longer than any timeout of a request.

    Args:
        ask: sends one request; raises where nothing comes back.
        seconds: to wait for it.
    Returns:
        the reason in a line; None where the server answered.
    """
    found: list[str | None] = []

    def answer() -> None:
        try:
            ask()
        except Exception as error:  # whatever a proxy, a resolver, a certificate or a URL can do
            found.append(one_line(error))
        else:
            found.append(None)

    asking = threading.Thread(target=answer, daemon=True)
    asking.start()
    asking.join(seconds)
    return found[0] if found else f"no answer in {seconds:.0f} s"
