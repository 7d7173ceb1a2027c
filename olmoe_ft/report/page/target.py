"""A page in a file that a person names: nothing but an older page is replaced."""

import os
import stat
from pathlib import Path

from olmoe_ft.recipe import UserError
from olmoe_ft.report.page.blocks import Page
from olmoe_ft.report.page.render import MARK, write_page
from olmoe_ft.report.private.private import Private

START = 4096  # bytes in which a page of ours has its mark
REMEDY = "name another file with --to"


def check_target(file: Path) -> None:
    """Raises:
    UserError: there is no folder for it, or something that is no page of ours is in its place.
    """
    try:
        found = _found(file)
    except OSError as error:
        raise UserError(f"{file}: {os.strerror(error.errno or 0)}; {REMEDY}") from error
    if found:
        raise UserError(
            f"{file}: found {found}; allowed: a new file in a folder that is there, or an older page; {REMEDY}"
        )


def write_to(page: Page, file: Path, private: Private) -> None:
    """Write a page whole, or not at all.

    Raises:
        UserError: as `check_target` says, or nothing can be written there.
    """
    check_target(file)
    try:
        write_page(page, file, private)
    except OSError as error:
        raise UserError(f"{file}: it cannot be written ({os.strerror(error.errno or 0)}); {REMEDY}") from error


def _found(file: Path) -> str:
    """What is in the way; empty where a page can be written."""
    if not file.parent.is_dir():
        return "no folder for it"
    if not os.path.lexists(file):
        return ""
    mode = file.lstat().st_mode
    if not stat.S_ISREG(mode):
        return "a folder" if stat.S_ISDIR(mode) else "a link" if stat.S_ISLNK(mode) else "a device or the like"
    with file.open("rb") as stream:
        return "" if MARK.encode() in stream.read(START) else "a file that olmoe-ft has not written"
