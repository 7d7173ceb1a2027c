"""Paths in texts of ours. Those outside the working folder keep their last part; relative ones stay as they are.

`/data/alice/rows.jsonl`, `C:\\Users\\alice\\rows.jsonl`, `file:///data/rows.jsonl`, `~/rows.jsonl` and `../rows.jsonl`
all become `…/rows.jsonl`.
"""

import re
from collections.abc import Collection

ELSEWHERE = "…"
PART = r"[^\s/\\\"'`<>|;,()\[\]{}*?:]+"
WINDOWS_PART = r"[^\\/:*?\"<>|\r\n\t]+"
WINDOWS_END = r"[^\\/:*?\"<>|\s,;'`)\]}]+"
BEFORE = r"(?<![\w.~…/\]])"  # no part of a URL, of a relative path, of a fraction, or of what is cut already
FORMS = (
    r"file:/+[^\s\"'`<>|]+",
    rf"(?<!\w)[A-Za-z]:[\\/]+(?:{WINDOWS_PART}[\\/]+)+(?:{WINDOWS_END})?",
    rf"(?<![\w\\:])\\\\+[\w.$-]+\\+(?:{WINDOWS_PART}\\+)*{WINDOWS_END}",  # \\server\share\name
    r"(?<=[\"'`])/(?!/)(?:[^\"'`\n/]+/)+[^\"'`\n/]+(?=[\"'`])",  # in quotes, so spaces belong to it
    rf"{BEFORE}/(?!/)(?:{PART}/+)+(?:{PART})?",
    rf"(?<![\w/])~(?:[A-Za-z_][\w-]*)?/+(?:{PART}/+)*{PART}",
    rf"(?<![\w./…])(?:\.\./+)+(?:{PART}/+)*{PART}",
)
PATHS = re.compile("|".join(FORMS))
SEPARATORS = re.compile(r"[\\/]+")


def without_folders(text: str, users: Collection[str]) -> str:
    """A text whose paths to elsewhere have lost their folders.

    Args:
        users: names that are no last part to keep, as that of a home folder.
    """
    if "/" not in text and "\\" not in text:
        return text
    return PATHS.sub(lambda found: _cut(found[0], users), text)


def _cut(path: str, users: Collection[str]) -> str:
    parts = [part for part in SEPARATORS.split(path) if part]
    if len(parts) < 2 or (len(parts) == 2 and parts[0].endswith(":") and parts[0] != "file:"):
        return path
    return ELSEWHERE if parts[-1] in users else f"{ELSEWHERE}/{parts[-1]}"
