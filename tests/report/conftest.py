from collections.abc import Iterator
from typing import Any

import pytest
from support.browser import chromium, open_browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for all tests of a file. It is closed then, since playwright's event loop runs as long as it is."""
    if chromium() is None:
        pytest.skip("no browser is installed: chromium or google-chrome")
    with open_browser() as opened:
        yield opened
