"""A Hugging Face Hub on this machine: as much of its HTTP interface as pushing and loading a model takes."""

import base64
import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_writes"


class Hub(ThreadingHTTPServer):
    """Models by name, each a list of commits; a commit is all files by path."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.models: dict[str, list[dict[str, bytes]]] = {}

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"


@contextlib.contextmanager
def serving():
    with Hub() as hub:
        threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True).start()
        yield hub
        hub.shutdown()


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format, *args):
        del format, args

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or self._chunks()
        if self.path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._json({"error": "Invalid username or password."}, 401)
        if self.path == "/api/repos/create":
            request = json.loads(body)
            name = f"{request['organization']}/{request['name']}"
            is_new = self.server.models.setdefault(name, []) == []
            return self._json({"url": f"{self.server.address}/{name}"}, 200 if is_new else 409)
        _, _, _, org, name, action, *_ = self.path.split("/")
        if action == "preupload":
            files = [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            return self._json({"files": files})
        commits = self.server.models[f"{org}/{name}"]
        lines = [json.loads(line)["value"] for line in body.splitlines() if b'"file"' in line[:16]]
        commits.append({line["path"]: base64.b64decode(line["content"]) for line in lines})
        sha = _sha(len(commits) - 1)
        return self._json(
            {"commitUrl": f"{self.server.address}/{org}/{name}/commit/{sha}", "commitOid": sha, "hookOutput": ""}
        )

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        if self.path.startswith("/api/") and not self.path.startswith("/api/models/"):
            return self._json({}, 404)
        parts = self.path.partition("?")[0].strip("/").split("/")
        org, name, *rest = parts[2:] if parts[0] == "api" else parts
        commits = self.server.models.get(f"{org}/{name}")
        if commits is None:
            return self._json({}, 401, {"X-Error-Code": "RepoNotFound"})
        action, revision, *path = rest or ("revision", "main")
        revisions = {_sha(index): index for index in range(len(commits))} | {"main": len(commits) - 1, "v1": 0}
        if revision not in revisions:
            return self._json({}, 404, {"X-Error-Code": "RevisionNotFound"})
        index = revisions[revision]
        if action == "revision":
            return self._json({"id": f"{org}/{name}", "sha": _sha(index), "siblings": []})
        if action == "tree":
            listing = [
                {"type": "file", "path": path, "size": len(content), "oid": _digest(content)}
                for path, content in commits[index].items()
            ]
            return self._json(listing)
        content = commits[index]["/".join(path)]
        return self._send(content, 200, {"ETag": f'"{_digest(content)}"', "X-Repo-Commit": _sha(index)})

    def _chunks(self):
        body = b""
        while size := int(self.rfile.readline() or b"0", 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        return body

    def _json(self, content, status=200, headers=None):
        self._send(json.dumps(content).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def _send(self, content, status, headers):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _sha(index):
    return f"{index:040x}"


def _digest(content):
    return hashlib.sha1(content).hexdigest()
