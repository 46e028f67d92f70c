"""A Hugging Face hub in memory, on a port of this machine: enough for an upload and a download."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_a-token-of-tests"


class FakeHub:
    """Repositories by name and branch.

    Attributes:
        files: (repository, branch) -> path -> content.
        private: Repositories that were created as private.
        requests: Method and path of every request.
    """

    def __init__(self) -> None:
        self.files: dict[tuple[str, str], dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.requests: list[str] = []
        self.url = ""

    def commit(self, repository: str, branch: str) -> str:
        """Return the id of a branch's content, as 40 digits."""
        content = sorted(self.files[repository, branch].items())
        return hashlib.sha1(repr(content).encode()).hexdigest()

    def branch_of(self, repository: str, revision: str) -> dict[str, bytes] | None:
        """Return the files of a branch or a commit."""
        for (name, branch), files in self.files.items():
            if name == repository and revision in (branch, self.commit(name, branch)):
                return files
        return None


@contextmanager
def running_hub() -> Iterator[FakeHub]:
    """Serve an empty hub."""
    hub = FakeHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self._path()
        if path == "/api/validate-yaml":
            self._reply({"errors": [], "warnings": []})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._reply({"error": "Invalid credentials in Authorization header"}, 401)
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        else:
            self._change(path, body)

    def _create(self, document: dict[str, Any]) -> None:
        repository = "/".join(filter(None, (document.get("organization"), document["name"])))
        is_new = (repository, "main") not in self.hub.files
        self.hub.files.setdefault((repository, "main"), {})
        if not is_new:
            pass  # Its visibility stays.
        elif document.get("visibility") == "private" or document.get("private"):
            self.hub.private.add(repository)
        self._reply({"url": f"{self.hub.url}/{repository}", "id": repository})

    def _change(self, path: str, body: bytes) -> None:
        _, _, _, owner, name, verb, branch = path.split("/", 6)
        repository = f"{owner}/{name}"
        if verb == "branch":
            self.hub.files.setdefault((repository, branch), {})
            self._reply({})
        elif verb == "preupload":
            files = []
            for file in json.loads(body)["files"]:
                files.append({"path": file["path"], "uploadMode": "regular", "shouldIgnore": False})
            self._reply({"files": files})
        elif verb == "commit":
            self._commit(self.hub.files[repository, branch], body)
            commit = self.hub.commit(repository, branch)
            url = f"{self.hub.url}/{repository}/commit/{commit}"
            self._reply({"success": True, "commitOid": commit, "commitUrl": url})

    def _commit(self, files: dict[str, bytes], body: bytes) -> None:
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                assert value["encoding"] == "base64"
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "deletedFile":
                del files[value["path"]]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self._path().strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self._describe(*parts[2:6])
        elif len(parts) < 5:
            self._reply({"error": "Not found"}, 404)
        else:
            owner, name, _, revision, *path = parts
            files = self.hub.branch_of(f"{owner}/{name}", revision) or {}
            self._send_file(f"{owner}/{name}", files.get("/".join(path)))

    def _describe(self, owner: str, name: str, verb: str = "", revision: str = "main") -> None:
        files = self.hub.branch_of(f"{owner}/{name}", revision)
        if files is None:
            self._reply({"error": "Repository not found"}, 404)
        elif verb == "tree":
            tree = []
            for path, content in files.items():
                entry = {"type": "file", "path": path, "size": len(content), "oid": "0" * 40}
                tree.append(entry)
            self._reply(tree)
        else:
            siblings = [{"rfilename": path} for path in files]
            document = {"id": f"{owner}/{name}", "sha": self._commit_of(files)}
            is_private = f"{owner}/{name}" in self.hub.private
            self._reply({**document, "siblings": siblings, "private": is_private, "tags": []})

    def _commit_of(self, files: dict[str, bytes]) -> str:
        (commit,) = {
            self.hub.commit(*key) for key, content in self.hub.files.items() if content is files
        }
        return commit

    def _send_file(self, repository: str, content: bytes | None) -> None:
        if content is None:
            self._reply({"error": "Entry not found"}, 404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        commit = next(
            self.hub.commit(*key)
            for key, files in self.hub.files.items()
            if key[0] == repository and content in files.values()
        )
        self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def _path(self) -> str:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        return path

    def _reply(self, document: Any, status: int = 200) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
