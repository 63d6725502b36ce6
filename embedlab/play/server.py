"""The page and what it asks for, served on this machine alone.

Loopback, a random word in the address, and requests whose Host and Origin are those of the address: a page from
elsewhere that has its name point here (DNS rebinding) is refused, and so is one that does not know the word. Pictures
are nowhere in an address: they come within the answer to the state that was sent, and an answer that nobody reads any
more ends the work for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from embedlab.clean import redact
from embedlab.errors import ConfigError, EmbedlabError
from embedlab.play import exports
from embedlab.play.exports import Studied
from embedlab.play.form import Form
from embedlab.play.schedules import DURING
from embedlab.play.state import Edit, State, cell_of, read
from embedlab.play.studio import Message, Studio

PAGE = Path(__file__).parent / "page"
SHARED = Path(__file__).parent.parent / "view" / "gallery" / "page"  # what it looks like, and elements from values
SHARED_FILES = {"gallery.css": "style.css", "dom.js": "dom.js"}
SCRIPTS = ("state.js", "wire.js", "tokens.js", "curves.js", "edits.js", "pictures.js", "exports.js", "main.js")
KINDS = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
}
HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
PORTS = 20  # that are tried, one after the other
LARGEST = 256 * 1024  # bytes of a state
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def check_installed() -> None:
    """Raise ConfigError where what serves the page is not installed."""
    for package in ("starlette", "uvicorn"):
        try:
            version(package)
        except PackageNotFoundError:
            raise ConfigError(
                f"play needs the package {package}, which is not installed: pip install 'embedlab[play]'."
            ) from None


def bound(port: int, exactly: bool = False) -> socket.socket:
    """A socket on this machine's loopback: the port, or the next that is free; ConfigError where none is."""
    for n in range(1 if exactly or not port else PORTS):
        found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            found.bind((HOST, port + n))
        except OSError:
            found.close()
        else:
            return found
    if exactly:
        raise ConfigError(f"port {port} is taken; name another: --port {port + 1}, or leave --port out.")
    raise ConfigError(f"the ports {port} to {port + PORTS - 1} are taken; name another: --port {port + PORTS}.")


@dataclass(frozen=True)
class Server:
    """The page of one studio: its address, and what answers there."""

    studio: Studio
    studied: Studied
    begin: State
    socket: socket.socket
    token: str = dataclasses.field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)

    @cached_property
    def port(self) -> int:
        """Where it listens."""
        return int(self.socket.getsockname()[1])

    @property
    def address(self) -> str:
        """What is opened in a browser."""
        return f"http://{HOST}:{self.port}/{self.token}/"

    @cached_property
    def app(self) -> Any:
        """The ASGI application."""
        from starlette.applications import Starlette  # noqa: PLC0415
        from starlette.responses import Response  # noqa: PLC0415
        from starlette.routing import Route  # noqa: PLC0415

        async def index(request: Any) -> Any:
            page = (PAGE / "index.html").read_text(encoding="utf-8")
            return Response(page, media_type=KINDS[".html"])

        async def file(request: Any) -> Any:
            name = request.path_params["name"]
            if name in SHARED_FILES:
                path = SHARED / SHARED_FILES[name]
            elif name in SCRIPTS or name == "play.css":
                path = PAGE / name
            else:
                return Response("not found", status_code=404)
            return Response(path.read_bytes(), media_type=KINDS[path.suffix])

        async def about(request: Any) -> Any:
            return _json(self._about())

        async def draw(request: Any) -> Any:
            return await self._draw(request)

        async def export(request: Any) -> Any:
            return await self._export(request)

        async def leave(request: Any) -> Any:
            self.studio.forget(key_in(request))
            return Response(status_code=204)

        start = "/{token}/"
        routes = [
            Route(start, index),
            Route(f"{start}about", about),
            Route(f"{start}draw", draw, methods=["POST"]),
            Route(f"{start}export", export, methods=["POST"]),
            Route(f"{start}leave", leave, methods=["POST"]),
            Route(f"{start}{{name}}", file),
        ]
        return Guard(Starlette(routes=routes), self)

    def refusal(self, scope: Mapping[str, Any]) -> str | None:
        """Why a request is not answered; None where it is."""
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        mine = [f"{name}:{self.port}" for name in NAMES]
        if headers.get("host") not in mine:
            return "this page is served to this machine by its own name alone"
        origin = headers.get("origin")
        if origin is not None and origin not in [f"http://{host}" for host in mine]:
            return "this page answers no other page"
        if scope["method"] == "POST" and origin is None:
            return "a state is sent by the page itself"
        token = scope["path"].split("/")[1] if "/" in scope["path"] else ""
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            return "the address lacks the word that embedlab play printed"
        return None

    def _about(self) -> Message:
        """What a page is told when it opens: forms, the state to begin with, the model."""
        model, forms = self.studio.model, self.studied.forms.values()
        return {
            "model": model.name,
            "engine": model.engine,
            "steps": self.studio.base.sampler.steps,
            "sampler": self.studio.base.sampler.scheduler,
            "towers": [
                {"name": f"text_encoder{f'_{n}' if n > 1 else ''}", "width": tower.width}
                for n, tower in enumerate(model.towers, start=1)
            ],
            "words": list(model.concepts),
            "forms": [form_said(form) for form in forms],
            "state": {
                "prompt": self.begin.prompt,
                "edits": [edit_said(edit) for edit in self.begin.edits],
                "seeds": list(self.begin.seeds),
            },
        }

    async def _draw(self, request: Any) -> Any:
        """Answers to a state, a line of JSON each, as they come; who stops reading ends the work."""
        from starlette.responses import StreamingResponse  # noqa: PLC0415

        said = await body_of(request)
        if said is None:
            return _json({"kind": "fault", "field": "", "text": "a state is JSON, and not that long."}, 400)
        loop = asyncio.get_running_loop()
        answers: asyncio.Queue[Message | None] = asyncio.Queue()

        def tell(message: Message | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(answers.put_nowait, message)

        task = self.studio.ask(key_in(request), said, tell)

        async def lines() -> AsyncIterator[bytes]:
            try:
                while (message := await answers.get()) is not None:
                    yield json.dumps(redacted(message)).encode() + b"\n"
            finally:
                self.studio.drop(task)

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def _export(self, request: Any) -> Any:
        said = await body_of(request)
        if not isinstance(said, Mapping):
            return _json({"fault": {"field": "", "text": "a state is JSON, and not that long."}}, 400)
        try:
            return _json(redact(self._exported(said)))
        except EmbedlabError as error:
            return _json({"fault": {"field": getattr(error, "field", ""), "text": str(error)}})
        except (IndexError, KeyError, OverflowError, StopIteration, TypeError, ValueError):  # what no page sends
            return _json({"fault": {"field": "", "text": "a slider names an edit, a setting and two ends."}}, 400)

    def _exported(self, said: Mapping[str, Any]) -> Message:
        state = read(said.get("state"), self.studied.forms)
        cell = cell_of(state, self.studied.base, self.studied.forms)
        studied = self.studied
        if cell.watched and studied.engine.name != "eager":
            studied = dataclasses.replace(studied, chosen="engine=eager")
        found: Message = {
            "command": exports.command(state, studied),
            "yaml": exports.experiment(state, studied),
            "python": exports.python(state, studied, cell),
        }
        slider = said.get("slider")
        if isinstance(slider, Mapping):
            n, name, part = int(slider["edit"]), str(slider["name"]), slider.get("part")
            values = exports.spread(float(slider["from"]), float(slider["to"]), slider.get("whole") is True)
            at = None if part is None else (str(part), int(slider["n"]))
            found["sweep"] = exports.sweep(state, studied, n, name, values, at)
        return found

    def run(self, ready: Callable[[], object] | None = None) -> None:
        """Serve until Ctrl-C or SIGTERM; `ready` is called when the page can be opened."""
        import uvicorn  # noqa: PLC0415

        outer = self

        class Serving(uvicorn.Server):
            @contextlib.contextmanager
            def capture_signals(self) -> Iterator[None]:
                import signal  # noqa: PLC0415
                import threading  # noqa: PLC0415

                if threading.current_thread() is not threading.main_thread():
                    yield
                    return
                before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
                try:
                    yield
                finally:
                    for number, handler in before.items():
                        signal.signal(number, handler)

            async def startup(self, sockets: Any = None) -> None:
                await super().startup(sockets=sockets)
                if ready is not None:
                    ready()

            async def shutdown(self, sockets: Any = None) -> None:
                await asyncio.to_thread(outer.studio.close)
                await super().shutdown(sockets=sockets)

        serving = Serving(
            uvicorn.Config(
                self.app,
                log_level="critical",
                lifespan="off",
                timeout_graceful_shutdown=2,
                server_header=False,
                ws="none",
            )
        )
        self._stop.append(lambda: setattr(serving, "should_exit", True))
        try:
            serving.run(sockets=[self.socket])
        finally:
            self.studio.close()
            self.socket.close()

    @cached_property
    def _stop(self) -> list[Callable[[], None]]:
        return []

    def stop(self) -> None:
        """End `run`, from another thread."""
        for end in self._stop:
            end()


@dataclass(frozen=True)
class Guard:
    """What stands before the application: it refuses whoever is not meant, and puts the policy on every answer."""

    app: Any
    server: Server

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                more = [(key.lower().encode(), value.encode()) for key, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *more]}
            await send(message)

        if (why := self.server.refusal(scope)) is not None:
            from starlette.responses import PlainTextResponse  # noqa: PLC0415

            await PlainTextResponse(f"{why}.\n", status_code=403)(scope, receive, with_headers)
            return
        await self.app(scope, receive, with_headers)


def key_in(request: Any) -> str:
    """The key of the page that sent a request, which it made up itself."""
    return str(request.headers.get("x-page", ""))[:64]


async def body_of(request: Any) -> Any:
    """What a request brought, as JSON; None where it is none, or too long."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST:
            return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def redacted(message: Message) -> Message:
    """A message fit to be seen; pictures are let through as they are."""
    if message.get("kind") == "pictures":
        return message
    return dict(redact(message))


def edit_said(edit: Edit) -> Message:
    """An edit as a page takes it."""
    said: Message = {"operator": edit.operator, "settings": dict(edit.settings)}
    return said if edit.during is None else {**said, DURING: dict(edit.during)}


def form_said(form: Form) -> Message:
    """A form as a page takes it."""
    return {
        "name": form.name,
        "about": form.about.replace("`", ""),
        "fields": [
            {
                "name": field.name,
                "kind": field.kind,
                "default": None if field.default == "???" else field.default,
                "needed": field.default == "???",
                "comment": field.comment.partition("; of the default prompt")[0],
                "options": list(field.options),
                "ends": None if field.ends is None else list(field.ends),
                "timed": field.timed,
            }
            for field in form.fields
        ],
    }


def _json(value: Any, status: int = 200) -> Any:
    from starlette.responses import JSONResponse  # noqa: PLC0415

    return JSONResponse(value, status_code=status)
