"""Names and addresses of computers in texts."""

import ipaddress
import re
from collections.abc import Collection

HOST = "[host]"
SHORTEST = 4  # letters; a shorter name is as common as the words below
# A host may have such a name, and a page is full of these words: there it is removed only where a host would be.
ORDINARY = frozenset(
    "adapter answers base batch before checkpoint cluster compute config cpu cuda data device eval evaluation expert "
    "experts final head host layer lora loss main master model node olmoe olmoe_ft plan probe report router runs "
    "sample samples server step stage task test tiny token tokens train training worker".split()
)
OF_INSIDE = r"(?<![\w.-])(?:[\w-]+\.)+(?:local|internal|lan|corp|intranet|localdomain|cluster)(?![\w.-]*\w)"
IN_URL = r"(?<=://)(?!localhost\b)[\w-]+(?=:\d|/)"  # one label, so it is in nobody's public DNS
OF_LAUNCHERS = "|".join(rf"(?<={name}[ =])[\w.:-]+" for name in ("main_process_ip", "master_addr", "rdzv_endpoint"))
FIXED = re.compile(f"{OF_INSIDE}|{IN_URL}|{OF_LAUNCHERS}")
ADDRESS = re.compile(
    r"(?<![\w.=-])(?<!ersion )(?<!NN )(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\w)"  # no version of a library
    r"|(?<![\w:.])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?![\w:.])"
)
PUBLIC = ("127.0.0.1", "0.0.0.0", "::1", "::")  # every computer's


def pattern_of(names: Collection[str], everywhere: bool) -> re.Pattern[str] | None:
    """What finds host names as whole words.

    Args:
        names: of hosts; `gpu[01-04]` is a list of SLURM.
        everywhere: whether names without a digit or a hyphen are removed too; they may be words of a language.
    """
    alternatives = []
    for name in sorted(names, key=lambda name: (-len(name), name)):
        word = _word(name)
        if name in ORDINARY or len(name) < SHORTEST:
            if everywhere:  # alice@main, main:29500, //main/
                alternatives.append(rf"(?<=@){word}|(?<=//){word}|{word}(?=:\d)")
        elif everywhere or re.search(r"[\d[-]", name):
            alternatives.append(word)
    return re.compile("|".join(alternatives)) if alternatives else None


def _word(name: str) -> str:
    prefix, bracket, _ = name.partition("[")
    return rf"(?<![A-Za-z0-9]){re.escape(prefix)}{'[0-9]+' if bracket else ''}(?![A-Za-z0-9])"


def of_list(nodes: str) -> list[str]:
    """The names in a list of SLURM, `gpu[01-04,07],login1`: `gpu[` stands for all of a bracket."""
    return [name + bracket[:1] for name, bracket in re.findall(r"([\w.-]+)(\[[^\]]*\])?", nodes)]


def without_addresses(text: str) -> str:
    """A text without addresses of the internet, and without hosts that their form gives away."""
    if not any(sign in text for sign in (".", ":", "_")):
        return text
    return ADDRESS.sub(_replaced, FIXED.sub(HOST, text))


def _replaced(found: re.Match[str]) -> str:
    try:
        ipaddress.ip_address(found[0])
    except ValueError:
        return found[0]
    return found[0] if found[0] in PUBLIC else HOST
