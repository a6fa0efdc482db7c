"""A small Hub on loopback: what huggingface_hub needs to make, fill and read a repository of a model."""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml

LARGE = (".safetensors", ".onnx")
COMMIT = "1" * 40


@dataclass
class Repository:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)


class HubStandIn:
    """Repositories by name, large objects by hash; objects in `refused` are not taken."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.received: list[str] = []
        self.refused: set[str] = set()
        self.tokens: set[str | None] = set()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> "HubStandIn":
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: HubStandIn
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.hub.tokens.add(self.headers.get("Authorization"))
        body = self.rfile.read(int(self.headers["Content-Length"]))
        for pattern, method in (
            (r"/api/repos/create", self.create),
            (r"/api/validate-yaml", self.validate),
            (r"/api/models/(.+)/preupload/main", self.preupload),
            (r"/(.+)\.git/info/lfs/objects/batch", self.batch),
            (r"/api/models/(.+)/commit/main", self.commit),
        ):
            if match := re.fullmatch(pattern, self.path.split("?")[0]):
                method(body, *match.groups())
                return
        self.send(404)

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        name = self.path.rpartition("/")[2]
        if name in self.hub.refused:
            self.send(403, headers={"X-Error-Message": "storage is full"})
            return
        assert hashlib.sha256(content).hexdigest() == name
        self.hub.objects[name] = content
        self.hub.received.append(name)
        self.send(200)

    def do_GET(self) -> None:
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+)?", self.path):
            repository = self.hub.repositories[match[1]]
            names = [{"rfilename": name} for name in repository.files]
            self.send(200, {"id": match[1], "sha": COMMIT, "private": repository.private, "siblings": names})
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", self.path):
            self.send_file(self.hub.repositories[match[1]].files.get(match[2]))
        else:
            self.send(404)

    do_HEAD = do_GET

    def create(self, body: bytes) -> None:
        wanted = json.loads(body)
        name = f"{wanted['organization']}/{wanted['name']}"
        known = name in self.hub.repositories
        # huggingface_hub 2 says it in another word.
        is_private = wanted.get("private", wanted.get("visibility") == "private")
        self.hub.repositories.setdefault(name, Repository(is_private))
        self.send(409 if known else 200, {"url": f"{self.hub.url}/{name}"})

    def validate(self, body: bytes) -> None:
        head = json.loads(body)["content"].split("---")[1]
        errors = [] if "model-index" in yaml.safe_load(head) else [{"message": "no model-index"}]
        self.send(400 if errors else 200, {"errors": errors, "warnings": []})

    def preupload(self, body: bytes, name: str) -> None:
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        self.send(200, {"files": modes})

    def batch(self, body: bytes, name: str) -> None:
        objects = json.loads(body)["objects"]
        for item in objects:
            if item["oid"] not in self.hub.objects:
                item["actions"] = {"upload": {"href": f"{self.hub.url}/objects/{item['oid']}"}}
        self.send(200, {"transfer": "basic", "objects": objects})

    def commit(self, body: bytes, name: str) -> None:
        repository = self.hub.repositories[name]
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                repository.commits.append(value["summary"])
            elif line["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del repository.files[value["path"]]
            elif line["key"] == "lfsFile":
                repository.files[value["path"]] = self.hub.objects[value["oid"]]
        answer = {"success": True, "commitOid": COMMIT, "commitUrl": f"{self.hub.url}/{name}/commit/{COMMIT}"}
        self.send(200, answer)

    def send_file(self, content: bytes | None) -> None:
        if content is None:
            self.send(404, headers={"X-Error-Code": "EntryNotFound"})
            return
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        self.send(200, content, headers={"ETag": etag, "X-Repo-Commit": COMMIT})

    def send(self, status: int, body: dict | bytes = b"", headers: dict[str, str] | None = None) -> None:
        content = json.dumps(body).encode() if isinstance(body, dict) else body
        self.send_response(status)
        kind = "application/json" if isinstance(body, dict) else "application/octet-stream"
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass
