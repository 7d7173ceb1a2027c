"""What must not leave this machine: keys, host names, local paths. Taken out of every text of a page or a card."""

import getpass
import netrc
import os
import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from huggingface_hub import get_token

from olmoe_ft.checkpoints.run_checkpoints import read_object
from olmoe_ft.report.private import hosts
from olmoe_ft.report.private.keys import OF_NAMES, OF_NAMES_IN_ROWS, REMOVED, without_keys
from olmoe_ft.report.private.local_paths import ELSEWHERE, without_folders
from olmoe_ft.training.files import read_yaml

SHORTEST_KEY = 8  # characters of a value that is looked for everywhere
HOLD_KEYS = re.compile(r"TOKEN(?!IZERS)|API_?KEY|SECRET|PASSW|PASSPHRASE|CREDENTIAL|ACCESS_?KEY|PRIVATE_?KEY")
OF_NODES = ("SLURMD_NODENAME", "SLURM_JOB_NODELIST", "SLURM_NODELIST", "SLURM_SUBMIT_HOST", "HOSTNAME", "MASTER_ADDR")
OF_EVERYONE = frozenset({"root", "user", "admin", "ubuntu", "runner", "docker", "localhost"})


@dataclass(frozen=True)
class Private:
    """What is private here, and its replacements."""

    keys: frozenset[str] = frozenset()
    """Values of keys and passwords."""
    hosts: frozenset[str] = frozenset()
    folders: tuple[tuple[str, str], ...] = ()
    """The beginnings of paths, and what is written in their place; "" makes a path relative."""
    users: frozenset[str] = frozenset()
    """Login names."""
    paths: frozenset[str] = frozenset()
    """Whole paths outside the working folder, as a run's files have them."""
    revisions: frozenset[str] = frozenset()
    """Revisions of git, which have the form of a key and are none."""

    def field(self, text: str) -> str:
        """A text of a recipe, a record or a message: paths to elsewhere keep their last part alone."""
        if len(text) < hosts.SHORTEST:
            return text
        text = self._without_known(text, OF_NAMES)
        if self._paths is not None:
            text = self._paths.sub(lambda found: f"{ELSEWHERE}/{Path(found[0]).name}", text)
        text = without_folders(text, self.users)
        text = hosts.without_addresses(text)
        text = self._hosts.sub(hosts.HOST, text) if self._hosts is not None else text
        return self._users.sub("[user]", text) if self._users is not None else text

    def row(self, text: str) -> str:
        """A text of the data or of a model: only what is known to be private here, and what looks like a key."""
        if len(text) < hosts.SHORTEST:
            return text
        text = self._without_known(text, OF_NAMES_IN_ROWS)
        return self._distinct_hosts.sub(hosts.HOST, text) if self._distinct_hosts is not None else text

    def has_key(self, text: str) -> bool:
        """Whether a text holds a key, judged as strictly as a row is."""
        return without_keys(text, OF_NAMES_IN_ROWS, self.revisions) != text or any(key in text for key in self.keys)

    def _without_known(self, text: str, names: re.Pattern[str]) -> str:
        if self._keys is not None:
            text = self._keys.sub(REMOVED, text)
        text = without_keys(text, names, self.revisions)
        if "/" in text:
            for pattern, replacement in self._folders:
                text = pattern.sub(replacement, text)
        return text

    @cached_property
    def _keys(self) -> re.Pattern[str] | None:
        return _any_of(self.keys)

    @cached_property
    def _paths(self) -> re.Pattern[str] | None:
        return _any_of(self.paths, r"(?![\w.-])")

    @cached_property
    def _hosts(self) -> re.Pattern[str] | None:
        return hosts.pattern_of(self.hosts, everywhere=True)

    @cached_property
    def _distinct_hosts(self) -> re.Pattern[str] | None:
        return hosts.pattern_of(self.hosts, everywhere=False)

    @cached_property
    def _users(self) -> re.Pattern[str] | None:
        names = "|".join(map(re.escape, sorted(self.users)))  # in a path of three parts or more, or before a host
        return re.compile(rf"(?<=/)(?:{names})(?=/)|(?<![\w.-])(?:{names})(?=@)") if names else None

    @cached_property
    def _folders(self) -> list[tuple[re.Pattern[str], str]]:
        found = []
        for folder, replacement in sorted(self.folders, key=lambda pair: -len(pair[0])):
            start = rf"(?<![\w.~{ELSEWHERE}/]){re.escape(folder)}"
            found.append((re.compile(rf"{start}/+(?=[\w.])"), f"{replacement}/" if replacement else ""))
            found.append((re.compile(rf"{start}(?![\w.-])/?"), replacement or "."))
        return found


def private_here(runs: Sequence[Path]) -> Private:
    """What is private of this machine, its user, and these runs."""
    here, home = Path.cwd(), Path.home()
    facts = [*map(_of_run, runs)]
    named = {value for one in facts for value in one["paths"] if value.startswith("/")}
    return Private(
        keys=frozenset(_keys()),
        hosts=frozenset(
            name for name in (*_hosts(), *(name for one in facts for name in one["hosts"])) if _tells(name)
        ),
        folders=tuple(_folders(runs, here, home)),
        users=frozenset({home.name, *_login(), *(name for one in facts for name in one["users"])} - OF_EVERYONE - {""}),
        paths=frozenset(path for path in named if not Path(path).is_relative_to(here) and path.count("/") > 1),
        revisions=frozenset(revision for one in facts for revision in one["revisions"]),
    )


def _any_of(texts: frozenset[str], behind: str = "") -> re.Pattern[str] | None:
    longest_first = sorted(texts, key=lambda text: (-len(text), text))
    return re.compile(f"(?:{'|'.join(map(re.escape, longest_first))}){behind}") if texts else None


def _folders(runs: Sequence[Path], here: Path, home: Path) -> Iterator[tuple[str, str]]:
    for folder in {here, here.resolve(), Path(os.environ.get("PWD", here))}:
        if len(folder.parts) > 2:  # not /tmp, which is in other people's texts
            yield str(folder), ""
    for place in {place for run in runs for place in (run.absolute(), run.resolve())}:
        if not place.is_relative_to(here):
            yield str(place), f"{ELSEWHERE}/{place.name}"
    for folder in {home, home.resolve()}:
        if len(folder.parts) > 1 and folder != here:
            yield str(folder), "~"


def _keys() -> Iterator[str]:
    """Values of the environment and of the files where libraries keep keys."""
    found = [value for name, value in os.environ.items() if HOLD_KEYS.search(name.upper())]
    try:
        logins = netrc.netrc(os.environ.get("NETRC")).hosts.values()
        found += [password for _, _, password in logins if password]
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        pass  # none, or none that can be read
    found.append(get_token() or "")
    for value in found:
        if len(value) >= SHORTEST_KEY and not value.isdigit() and not value.startswith(("/", "~")):
            yield value


def _hosts() -> Iterator[str]:
    for name in (socket.gethostname(), socket.getfqdn()):
        yield from (name, name.partition(".")[0])
    for variable in OF_NODES:
        yield from hosts.of_list(os.environ.get(variable, ""))


def _tells(host: str) -> bool:
    numbers = re.fullmatch(r"[\d.]+", host)  # an address has its own rule
    return len(host) > 1 and not numbers and not host.startswith("localhost")


def _login() -> Iterator[str]:
    try:
        yield getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in some containers
        return


def _of_run(run: Path) -> dict[str, list[str]]:
    """What the files of a run know of the machine that it was trained on."""
    recipe, launches = read_yaml(run / "recipe.yaml") or {}, read_object(run / "run.json") or {}
    adapter = read_object(run / "final" / "adapter_config.json") or {}
    wandb = [read_object(file) or {} for file in sorted(run.glob("wandb/*/files/wandb-metadata.json"))]
    texts = [*_texts("", [recipe, launches, adapter, read_object(run / "data_report.json") or {}])]
    holder = read_object(run / "lock") or {}
    return {
        "paths": [text for _, text in texts if "\n" not in text],
        "hosts": [name for one in (holder, *wandb) for name in hosts.of_list(str(one.get("host", "")))],
        "users": [str(one["username"]) for one in wandb if len(str(one.get("username", ""))) > 2],
        "revisions": [text.removesuffix("-dirty") for key, text in texts if key in ("revision", "git_revision")],
    }


def _texts(key: str, value: Any) -> Iterator[tuple[str, str]]:
    match value:
        case str():
            yield key, value
        case dict():
            for name, item in value.items():
                yield from _texts(str(name), item)
        case list():
            for item in value:
                yield from _texts(key, item)
