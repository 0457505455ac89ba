"""A local stand-in of the Hub's HTTP API: as much of it as huggingface_hub calls to fetch a repository.

Large files are served as the Hub serves them, by a redirect to another host with the checksum as ETag;
small ones directly. Errors carry the Hub's status and `X-Error-Code`.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".parquet", ".jsonl", ".gz", ".safetensors")


def commit_of(files: Mapping[str, bytes]) -> str:
    """A commit hash that follows from the content."""
    digest = hashlib.sha1()
    for name in sorted(files):
        digest.update(name.encode() + b"\0" + files[name] + b"\0")
    return digest.hexdigest()


@dataclass
class Repository:
    """A dataset repository: commits with their files, and refs that name them."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False

    def commit(self, files: Mapping[str, bytes], *refs: str) -> str:
        """Add a commit and point `refs` to it."""
        sha = commit_of(files)
        self.commits[sha] = dict(files)
        self.refs.update(dict.fromkeys(refs or ("main",), sha))
        return sha


@dataclass
class Hub:
    """What is served, and what was asked."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    cut: int | None = None  # bytes after which the body of a large file ends, with a length that agrees
    failing: int | None = None  # a status that every request gets

    def add(self, repo: str, files: Mapping[str, bytes], *refs: str) -> str:
        """Put a commit into a repository; its hash."""
        return self.repositories.setdefault(repo, Repository()).commit(files, *refs)


@contextmanager
def serve() -> Iterator[Hub]:
    """Run the stand-in on a free port of this machine."""
    hub = Hub()

    class Handler(_Handler):
        served = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    served: Hub
    # HTTP/1.0 ends every connection, so that nothing answers once the server has stopped.

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing on standard error."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.served.requests.append(f"{self.command} {path}")
        self.served.tokens.add(self.headers.get("Authorization"))
        if self.served.failing is not None:
            self._send(self.served.failing, b"out of order")
            return
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "datasets"] and len(parts) >= 6 and parts[4] in ("revision", "tree"):
            self._api("/".join(parts[2:4]), parts[4], parts[5])
        elif parts[0] == "datasets" and parts[3] == "resolve":
            self._file("/".join(parts[1:3]), parts[4], "/".join(parts[5:]))
        elif parts[0] == "large":
            self._body("/".join(parts[1:3]), parts[3], "/".join(parts[4:]))
        else:
            self._error(404, "RepoNotFound", f"no such address: {path}")

    def _found(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        repository = self.served.repositories.get(repo)
        if repository is None or (repository.private and "Authorization" not in self.headers):
            # The Hub does not say whether a repository is private or absent.
            self._error(401, "RepoNotFound", "Invalid username or password.")
            return None
        sha = repository.refs.get(revision, revision)
        if sha not in repository.commits:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return sha, repository.commits[sha]

    def _api(self, repo: str, what: str, revision: str) -> None:
        found = self._found(repo, revision)
        if found is None:
            return
        sha, files = found
        if what == "revision":
            siblings = [{"rfilename": name} for name in files]
            self._json({"id": repo, "sha": sha, "private": False, "tags": [], "siblings": siblings})
            return
        entries = []
        for name, content in files.items():
            entry: dict[str, Any] = {
                "type": "file",
                "path": name,
                "size": len(content),
                "oid": hashlib.sha1(content).hexdigest(),
            }
            if name.endswith(LARGE):
                entry["lfs"] = {
                    "oid": hashlib.sha256(content).hexdigest(),
                    "size": len(content),
                    "pointerSize": 134,
                }
            entries.append(entry)
        self._json(entries)

    def _file(self, repo: str, revision: str, name: str) -> None:
        found = self._found(repo, revision)
        if found is None:
            return
        sha, files = found
        if self.served.repositories[repo].gated and "Authorization" not in self.headers:
            self._error(403, "GatedRepo", "Access to this dataset is restricted.")
            return
        headers = {"X-Repo-Commit": sha}
        if name not in files:
            self._error(404, "EntryNotFound", "Entry not found", headers)
            return
        content = files[name]
        if not name.endswith(LARGE):
            self._send(200, content, headers | {"ETag": f'"{hashlib.sha1(content).hexdigest()}"'})
            return
        headers |= {
            "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Linked-Size": str(len(content)),
            # Another host, as the Hub redirects to its storage; the client follows its own host by itself.
            "Location": f"{self.served.url.replace('127.0.0.1', 'localhost')}/large/{repo}/{sha}/{name}",
        }
        self._send(302, b"", headers)

    def _body(self, repo: str, sha: str, name: str) -> None:
        content = self.served.repositories[repo].commits[sha][name]
        self._send(200, content if self.served.cut is None else content[: self.served.cut])

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        named = {**(headers or {}), "X-Error-Code": code, "X-Error-Message": message}
        self._send(status, json.dumps({"error": message}).encode(), named)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
