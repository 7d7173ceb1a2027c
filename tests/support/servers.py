"""Servers on this machine that answer as a network goes wrong: with one status, or never."""

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def answering(status: int, **headers: str) -> Iterator[str]:
    """A server that answers everything with this status; its URL. `X_Error_Code` is the header X-Error-Code."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self.send_response(status)
            for name, value in {"content-length": "0", **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()

        do_GET = do_HEAD = do_POST = answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@contextmanager
def silent() -> Iterator[str]:
    """A server that takes connections and never answers; its URL."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def closed() -> Iterator[str]:
    """The URL of a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


class WandbServer(ThreadingHTTPServer):
    """As much of W&B's server as a run needs to start and to send its records."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _WandbHandler)
        self.streamed: list[dict] = []
        """What was sent of a run's files, in order."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def history(self) -> list[dict]:
        """The records that were logged."""
        parts = [
            sent["files"]["wandb-history.jsonl"]
            for sent in self.streamed
            if "wandb-history.jsonl" in (sent.get("files") or {})
        ]
        return [json.loads(line) for part in parts for line in part["content"]]


class _WandbHandler(BaseHTTPRequestHandler):
    server: WandbServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        query = body.decode(errors="replace")
        if self.path.endswith("/file_stream"):
            self.server.streamed.append(json.loads(query))
        project = {"id": "p", "name": "p", "entity": {"id": "e", "name": "e"}}
        bucket = {"id": "b", "name": "b", "displayName": "b", "config": "{}", "historyLineCount": 0, "project": project}
        data: dict[str, object] = {}
        if "upsertBucket" in query:
            data = {"upsertBucket": {"inserted": True, "bucket": bucket}}
        elif "createRunFiles" in query:
            data = {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": []}}
        elif "RunResumeStatus" in query:
            data = {"model": {"bucket": None}}
        answer = json.dumps({"data": data} if self.path.endswith("graphql") else {}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """A server for W&B; `shutdown` and `server_close` end it early."""
    server = WandbServer()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
