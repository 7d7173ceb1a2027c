"""As much of the Hub as a push needs: repositories with branches, git LFS, one commit at a time."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class Repository:
    private: bool
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    messages: list[str] = field(default_factory=list)
    """Of its commits."""


class HubServer(ThreadingHTTPServer):
    """
    Attributes:
        token: the only one that may write.
        breaks: parts of paths that are answered with error 500 once, and then rightly.
        refused: whether the card's metadata is refused.
    """

    def __init__(self, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.token = token
        self.repositories: dict[str, Repository] = {}
        self.stored: dict[str, bytes] = {}
        self.breaks: list[str] = []
        self.refused = False
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: HubServer

    def do_HEAD(self) -> None:
        self._answer(404, {})

    def do_GET(self) -> None:
        self._act(b"")

    def do_POST(self) -> None:
        self._act(self.rfile.read(int(self.headers.get("content-length") or 0)))

    def do_PUT(self) -> None:
        self._read_into_store()
        self._answer(200, {})

    def _read_into_store(self) -> None:
        content = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.stored[self.path.rpartition("/")[2]] = content

    def _act(self, body: bytes) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"{self.command} {path}")
        broken = next((part for part in self.server.breaks if part in path), None)
        if broken is not None:
            self.server.breaks.remove(broken)
            self._answer(500, {"error": "try again"})
        elif self.headers.get("authorization") != f"Bearer {self.server.token}":
            self._answer(401, {"error": "Invalid username or password."})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._answer(400 if self.server.refused else 200, {"errors": [{"message": "no"}], "warnings": []})
        elif path.endswith("/info/lfs/objects/batch"):
            self._offer(json.loads(body))
        else:
            _, _, _, owner, name, *rest = path.split("/")
            self._of_repository(f"{owner}/{name}", rest, body)

    def _create(self, wanted: dict) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        if name in self.server.repositories:
            self._answer(409, {"error": "You already created this model repo", "url": f"{self.server.url}/{name}"})
            return
        self.server.repositories[name] = Repository(private=wanted.get("visibility") == "private")
        self._answer(200, {"url": f"{self.server.url}/{name}", "id": name, "name": name})

    def _offer(self, wanted: dict) -> None:
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.server.url}/lfs/{one['oid']}"}}} for one in wanted["objects"]
        ]
        self._answer(200, {"transfer": "basic", "objects": objects})

    def _of_repository(self, name: str, rest: list[str], body: bytes) -> None:
        repository = self.server.repositories.get(name)
        if repository is None:
            self._answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            return
        match rest:
            case [] | ["revision", _]:
                self._answer(200, {"id": name, "private": repository.private, "sha": "0" * 40, "siblings": []})
            case ["branch", branch]:
                repository.branches.setdefault(branch, {})
                self._answer(200, {})
            case ["tree", branch]:
                files = repository.branches[branch]
                tree = [{"type": "file", "path": path, "size": len(files[path]), "oid": "0" * 40} for path in files]
                self._answer(200, tree)
            case ["preupload", _]:
                paths = [file["path"] for file in json.loads(body)["files"]]
                modes = {path: "lfs" if path.endswith(".safetensors") else "regular" for path in paths}
                files = [{"path": path, "uploadMode": modes[path], "shouldIgnore": False} for path in paths]
                self._answer(200, {"files": files})
            case ["commit", branch]:
                self._commit(name, branch, [json.loads(line) for line in body.splitlines()])
            case _:
                self._answer(404, {"error": f"not made for {self.path}"})

    def _commit(self, name: str, branch: str, lines: list[dict]) -> None:
        repository = self.server.repositories[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                repository.messages.append(value["summary"])
            elif line["key"] == "file":
                repository.branches[branch][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                content = self.server.stored[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                repository.branches[branch][value["path"]] = content
        self._answer(200, {"commitUrl": f"{self.server.url}/{name}/commit/{1:040}", "commitOid": "1" * 40})

    def _answer(self, status: int, value: object, **headers: str) -> None:
        content = json.dumps(value).encode() if self.command != "HEAD" else b""
        self.send_response(status)
        for name, text in {"content-type": "application/json", "content-length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def hub_server(token: str = "hf_of_the_test") -> Iterator[HubServer]:
    """A Hub on this machine, for HF_ENDPOINT."""
    server = HubServer(token)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
