"""A small Hugging Face Hub on this machine: what huggingface_hub needs to download and upload a model.

Endpoints as in its client: repository and revision, tree, resolve (HEAD and GET), create, preupload, LFS batch with a
single upload, and commit as lines of JSON. A commit is a dictionary of files, its name the SHA-1 of their content.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlparse

Files = dict[str, bytes]


class Hub:
    """Repositories, and the server that speaks for them."""

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, Files]] = {}
        self.main: dict[str, str] = {}
        self.large: Files = {}
        """LFS objects by their SHA-256."""
        self.asked: list[str] = []
        self.refuse: int | None = None
        """A status that every request is answered with."""
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def put(self, repo: str, files: Files) -> str:
        """Make a commit of all files, and return its name."""
        digest = hashlib.sha1(b"".join(name.encode() + raw for name, raw in sorted(files.items()))).hexdigest()
        self.commits.setdefault(repo, {})[digest] = dict(files)
        self.main[repo] = digest
        return digest

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlparse(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        if self.hub.refuse is not None:
            return self.answer({"error": "no"}, self.hub.refuse)

        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            commit = self.commit(found[1], found[2] or "main")
            if commit:
                names = [{"rfilename": name} for name in self.hub.commits[found[1]][commit]]
                self.answer({"id": found[1], "modelId": found[1], "sha": commit, "siblings": names, "tags": []})
            return None

        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            if commit := self.commit(found[1], found[2]):
                files = self.hub.commits[found[1]][commit].items()
                self.answer([self.entry(name, raw) for name, raw in files])
            return None

        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            commit = self.commit(found[1], found[2])
            if commit is None:
                return None
            raw = self.hub.commits[found[1]][commit].get(found[3])
            if raw is None:
                return self.answer({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            etag = hashlib.sha256(raw).hexdigest()
            return self.answer(raw, 200, {"X-Repo-Commit": commit, "ETag": f'"{etag}"'})

        return self.answer({"error": path}, 404)

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        path = unquote(urlparse(self.path).path)
        self.hub.asked.append(f"POST {path}")
        body = self.body()
        if self.hub.refuse is not None:
            return self.answer({"error": "no"}, self.hub.refuse)

        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})

        if path == "/api/repos/create":
            wanted = json.loads(body)
            repo = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
            if repo in self.hub.main:
                return self.answer({"url": f"{self.hub.address}/{repo}"}, 409)
            self.hub.put(repo, {".gitattributes": b"*.onnx filter=lfs\n"})
            return self.answer({"url": f"{self.hub.address}/{repo}", "id": repo, "name": repo})

        if re.fullmatch(r"/api/models/[^/]+/[^/]+/preupload/[^/]+", path):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".onnx") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return self.answer({"files": files})

        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                each
                | ({} if each["oid"] in self.hub.large else {"actions": {"upload": {"href": self.place(each["oid"])}}})
                for each in json.loads(body)["objects"]
            ]
            return self.answer({"transfer": "basic", "objects": objects})

        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/[^/]+", path):
            return self.add_commit(found[1], [json.loads(line) for line in body.splitlines()])

        return self.answer({"error": path}, 404)

    def do_PUT(self) -> None:
        self.hub.asked.append(f"PUT {self.path}")
        raw = self.body()
        self.hub.large[hashlib.sha256(raw).hexdigest()] = raw
        self.answer({}, 200)

    def add_commit(self, repo: str, lines: list[dict[str, Any]]) -> None:
        files = dict(self.hub.commits[repo][self.hub.main[repo]])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                assert value["encoding"] == "base64"
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
        commit = self.hub.put(repo, files)
        self.answer({"success": True, "commitOid": commit, "commitUrl": f"{self.hub.address}/{repo}/commit/{commit}"})

    def commit(self, repo: str, revision: str) -> str | None:
        """The commit of a revision; None where the answer is given already."""
        if repo not in self.hub.main:
            self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            return None
        name = self.hub.main[repo] if revision == "main" else revision
        if name not in self.hub.commits[repo]:
            self.answer({"error": "Revision not found"}, 404, {"X-Error-Code": "RevisionNotFound"})
            return None
        return name

    def entry(self, name: str, raw: bytes) -> dict[str, Any]:
        oid = hashlib.sha1(f"blob {len(raw)}\0".encode() + raw).hexdigest()
        found: dict[str, Any] = {"type": "file", "path": name, "size": len(raw), "oid": oid}
        if name.endswith(".onnx"):
            found["lfs"] = {"oid": hashlib.sha256(raw).hexdigest(), "size": len(raw), "pointerSize": 130}
        return found

    def place(self, oid: str) -> str:
        return f"{self.hub.address}/upload/{oid}"

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.send_header("Content-Type", "application/octet-stream" if raw is content else "application/json")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    def log_message(self, *_: Any) -> None:
        """Nothing: tests look at `Hub.asked`."""
