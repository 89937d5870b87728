"""A stand-in for the W&B server on loopback: it keeps what arrives, answers just enough for a run and for `wandb
sync`.
"""

import gzip
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Server"]


class Server:
    """A server that notes runs, history lines (by offset, as W&B does), files and artifacts.

    Arguments:
        broken: Answer everything with 500, as in an outage.
    """

    def __init__(self, broken: bool = False):
        self.broken = broken
        self.runs: dict[str, dict[str, Any]] = {}
        self.history: dict[str, dict[int, dict]] = {}
        self.summary: dict[str, dict] = {}
        self.ends: dict[str, list[int]] = {}
        self.artifacts: list[dict] = []
        self.uploads: list[str] = []
        self.requests = 0
        self.keys: set[str] = set()
        handler = type("Handler", (_Handler,), {"server_state": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def lines(self, run: str) -> list[dict]:
        """History lines of a run, in order."""
        return [self.history[run][offset] for offset in sorted(self.history.get(run, {}))]

    def graphql(self, query: str, variables: dict[str, Any], host: str) -> dict:
        """Answer one GraphQL request."""
        if "upsertBucket" in query:
            return {"upsertBucket": {"bucket": self._upsert(variables), "inserted": True}}
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"http://{host}/upload/{name}"} for name in variables.get("files", [])]
            return {"createRunFiles": {"runID": "bucket", "uploadHeaders": [], "files": files}}
        if "createArtifact(" in query or "CreateArtifact(" in query:
            self.artifacts.append(variables["input"])
            number = str(len(self.artifacts))
            sequence = {"id": "sequence", "latestArtifact": {"id": number, "versionIndex": 0}}
            return {"createArtifact": {"artifact": {"id": number, "state": "COMMITTED", "artifactSequence": sequence}}}
        if "artifactType" in query or "ArtifactType" in query:
            return {"project": {"artifact": None}}
        if "viewer" in query:
            viewer = {
                "id": "user",
                "entity": "me",
                "username": "me",
                "flags": "{}",
                "email": "me@localhost",
                "admin": False,
                "teams": {"edges": []},
            }
            return {"viewer": viewer, "serverInfo": SERVER}
        if "serverInfo" in query:
            return {"serverInfo": SERVER}
        if "bucket(" in query:
            return {"model": {"bucket": None, "entity": {"id": "e", "name": "me"}}}
        return {}

    def stream(self, run: str, body: dict) -> None:
        """Take a piece of the file stream."""
        for name, chunk in body.get("files", {}).items():
            content = [json.loads(line) for line in chunk["content"] if line]
            if name == "wandb-history.jsonl":
                self.history.setdefault(run, {}).update({chunk["offset"] + i: line for i, line in enumerate(content)})
            elif name == "wandb-summary.json" and content:
                self.summary[run] = content[-1]
        if body.get("complete"):
            self.ends.setdefault(run, []).append(body.get("exitcode"))

    def _upsert(self, variables: dict[str, Any]) -> dict:
        name = variables.get("name") or "run"
        known = self.runs.setdefault(name, {"upserts": 0})
        known |= {key: value for key, value in variables.items() if value is not None}
        known["upserts"] += 1
        project = {"id": "p", "name": known.get("project") or "demo", "entity": {"id": "e", "name": "me"}}
        bucket = {
            "id": "bucket",
            "name": name,
            "displayName": known.get("displayName") or name,
            "description": None,
            "config": "{}",
        }
        return bucket | {
            "sweepName": None,
            "historyLineCount": 0,
            "project": project,
            "inserted": True,
            "updated": False,
        }


SERVER = {"cliVersionInfo": {"max_cli_version": "0.99.0"}, "latestLocalVersionInfo": None, "features": []}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: Server

    def log_message(self, *arguments: Any) -> None: ...

    def do_GET(self) -> None:
        self._answer({})

    def do_PUT(self) -> None:
        self._body()
        self.server_state.uploads.append(self.path.removeprefix("/upload/"))
        self._answer({})

    def do_POST(self) -> None:
        body = self._body()
        state = self.server_state
        state.keys.add(self.headers.get("Authorization", ""))
        data = json.loads(body) if body.startswith(b"{") else {}
        if self.path.startswith("/graphql"):
            return self._answer(
                {"data": state.graphql(data.get("query", ""), data.get("variables") or {}, self.headers["Host"])}
            )
        if found := re.search(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
            state.stream(found[1], data)
        self._answer({})

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def _body(self) -> bytes:
        self.server_state.requests += 1
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def _answer(self, node: dict) -> None:
        body = json.dumps(node).encode()
        self.send_response(500 if self.server_state.broken else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
