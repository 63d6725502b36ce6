"""As much of wandb's server as `wandb sync` speaks to, on this machine: it keeps runs, their files and artifacts."""

import gzip
import json
import re
import sys
import threading
import traceback
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Backend:
    """What was sent: `runs` by their ids, `files` and `artifacts` by what they are called, `lines` by run and file."""

    def __init__(self):
        self.runs: dict[str, dict] = {}
        self.lines: dict[str, dict[str, dict[int, str]]] = {}
        self.files: dict[str, bytes] = {}
        self.artifacts: dict[str, dict] = {}
        self.asked: list[str] = []
        self.faults: list[str] = []
        self.reports: list[dict] = []
        self.refuses = False
        self.lock = threading.Lock()

    def summary(self, run: str) -> dict:
        """The last summary that was sent of a run."""
        return json.loads(list(self.lines[run]["wandb-summary.json"].values())[-1])

    def config(self, run: str) -> dict:
        """A run's config, as the page of it has it."""
        return {key: value["value"] for key, value in json.loads(self.runs[run]["config"]).items()}

    def pictures_of(self, name: str) -> dict[str, bytes]:
        """The files of an artifact by their paths in it."""
        (one,) = (key for key, known in self.artifacts.items() if known["artifactCollectionName"] == name)
        return {path.removeprefix(f"{one}/"): data for path, data in self.files.items() if path.startswith(f"{one}/")}

    def graphql(self, asked: dict, url: str) -> dict:
        """What the server answers a query, by its name."""
        name = asked.get("operationName") or re.match(r"\s*(?:mutation|query)\s+(\w+)", asked["query"])[1]
        given = asked.get("variables") or {}
        with self.lock:
            self.asked.append(name)
            return getattr(self, f"on_{name}", lambda given, url: {})(given.get("input", given), url)

    def on_ServerFeaturesQuery(self, given, url):  # noqa: N802
        return {"serverInfo": {"features": []}}

    def on_UpsertBucket(self, given, url):  # noqa: N802
        known = self.runs.setdefault(given["name"], {})
        new = not known
        known.update({key: value for key, value in given.items() if value is not None})
        project = {"id": "p", "name": given["project"], "entity": {"id": "e", "name": "somebody"}}
        about = {"displayName": known.get("displayName"), "description": None, "config": "{}", "sweepName": None}
        bucket = {
            "id": f"id-{given['name']}",
            "name": given["name"],
            **about,
            "project": project,
            "historyLineCount": 0,
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": new}}

    def on_CreateRunFiles(self, given, url):  # noqa: N802
        files = [{"name": name, "uploadUrl": f"{url}/put/{given['run']}/{name}"} for name in given["files"]]
        return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}

    def on_CreateArtifact(self, given, url):  # noqa: N802
        key = f"artifact-{len(self.artifacts)}"
        self.artifacts[key] = dict(given)
        artifact = {"id": key, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": artifact}}

    def on_CreateArtifactManifest(self, given, url):  # noqa: N802
        file = {"id": "f", "name": given["name"], "displayName": given["name"], "uploadHeaders": []}
        file["uploadUrl"] = f"{url}/put/manifest-of-{given['artifactID']}"
        return {"createArtifactManifest": {"artifactManifest": {"id": f"m-{given['artifactID']}", "file": file}}}

    on_UpdateArtifactManifest = on_CreateArtifactManifest  # noqa: N815

    def on_CreateArtifactFiles(self, given, url):  # noqa: N802
        nodes = []
        for one in given["artifactFiles"]:
            place = f"{one['artifactID']}/{one['name']}"
            node = {"id": place, "name": one["name"], "displayName": one["name"], "uploadUrl": f"{url}/put/{place}"}
            node |= {"uploadHeaders": [], "storagePath": place, "artifact": {"id": one["artifactID"]}}
            nodes.append({"node": {**node, "uploadMultipartUrls": None}})
        return {"createArtifactFiles": {"files": {"edges": nodes}}}

    def on_Viewer(self, given, url):  # noqa: N802
        teams = {"edges": [{"node": {"name": "somebody"}}]}
        about = {"id": "v", "entity": "somebody", "username": "somebody", "email": "somebody@example.org"}
        return {"viewer": {**about, "flags": "{}", "teams": teams}}

    on_GetDefaultEntity = on_Viewer  # noqa: N815

    def on_GetProjects(self, given, url):  # noqa: N802
        node = {"id": "p", "name": "embedlab", "entityName": "somebody", "createdAt": "2026-01-01T00:00:00"}
        node |= {"isBenchmark": False, "user": None}
        page = {"endCursor": None, "hasNextPage": False}
        return {
            "models": {
                "edges": [{"cursor": "c", "node": node}],
                "pageInfo": page,
            }
        }

    def on_upsertView(self, given, url):  # noqa: N802
        self.reports.append(given)
        project = {"id": "p", "name": given["projectName"], "entityName": given["entityName"]}
        about = {key: given[key] for key in ("type", "name", "displayName", "description", "spec")}
        view = {"id": given["id"] or f"report{len(self.reports)}", **about, "project": project, "updatedAt": None}
        return {"upsertView": {"view": view, "inserted": given["id"] is None}}

    def on_CommitArtifact(self, given, url):  # noqa: N802
        self.artifacts[given["artifactID"]]["committed"] = True
        return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": "d"}}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def backend(self) -> Backend:
        return self.server.backend  # type: ignore[attr-defined]

    def log_message(self, *_):
        """Nothing on the terminal."""

    def _body(self) -> bytes:
        data = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while length := int(self.rfile.readline(), 16):
                data += self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def _answer(self, value, code: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_PUT(self):
        with self.backend.lock:
            self.backend.files[self.path.removeprefix("/put/")] = self._body()
        self._answer({})

    def do_POST(self):
        body = self._body()
        if self.backend.refuses:
            self._answer({"errors": [{"message": "permission denied"}]}, 403)
        elif self.path == "/graphql":
            self._answer({"data": self.backend.graphql(json.loads(body), f"http://{self.headers['Host']}")})
        elif self.path.endswith("/file_stream"):  # lines of history, of the summary, of what was printed
            run = self.path.split("/")[-2]
            for file, chunk in (json.loads(body).get("files") or {}).items():
                lines = self.backend.lines.setdefault(run, {}).setdefault(file, {})
                lines.update(enumerate(chunk["content"], chunk["offset"]))
            self._answer({})
        else:  # what wandb wants to know about itself
            self._answer({}, 404)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, address):
        """wandb hangs up when it is done; what else goes wrong here is a test's to know."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            self.backend.faults.append(traceback.format_exc())


@contextmanager
def serving():
    """A backend and its address, until the block ends."""
    server = Server(("127.0.0.1", 0), Handler)
    server.backend = Backend()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.backend, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        assert not server.backend.faults, "".join(server.backend.faults)
