"""The HTTP application: routes, who may ask, limits of a request, and streams of its answer."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import ipaddress
import json
import re
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from launch.chat import request as drawing
from launch.chat.engine import Busy, Ended, Engine
from launch.chat.opened import Opened
from launch.chat.request import CANCELLED, FAILED, Piece
from launch.server.answers import Answers
from launch.server.faults import Refused
from launch.server.queries import CHAT, TEXT, Query, check_model, parse

PAGE = Path(__file__).with_name("page.html")
BODY_SECONDS = 30.0  # in which a body must have come
DRAINED = 64  # times the limit of a body are read and dropped, so that a client gets its answer
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True)
class Limits:
    """What a client may send. Without a `token` only pages of this machine may ask."""

    body: int = 2**20  # bytes
    token: str = ""


Handler = Callable[[Request], Awaitable[Response]]


class Service:
    """Answers requests with one model."""

    def __init__(self, opened: Opened, engine: Engine, limits: Limits):
        self.opened, self.engine, self.limits = opened, engine, limits
        self.parsing = 0  # bodies that are being read as queries
        self.model = dict(id=opened.name, object="model", created=0, owned_by="isoflop",
                          context_length=opened.length, template=opened.turns.name)  # fmt: skip

    def app(self) -> Starlette:
        """The application."""
        routes = [
            Route("/", self.guarded(self.page, secret=False)),
            Route("/v1/models", self.guarded(self.models)),
            Route("/v1/models/{name:path}", self.guarded(self.one_model)),
            Route("/v1/chat/completions", self.guarded(self.answering(CHAT)), methods=["POST"]),
            Route("/v1/completions", self.guarded(self.answering(TEXT)), methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _http_error,
                                                            Exception: _bug})  # fmt: skip

    def guarded(self, handler: Handler, secret: bool = True) -> Handler:
        """The handler for clients that may ask; `secret`: they need the token."""

        async def answer(request: Request) -> Response:
            try:
                self._admit(request, secret)
                response = await handler(request)
            except Refused as refused:
                response = refused.response()
            except ClientDisconnect:
                response = Response(status_code=499)  # nobody reads it
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return answer

    def _admit(self, request: Request, secret: bool) -> None:
        host = request.headers.get("host", "")
        origin = request.headers.get("origin")
        # A page of another site must not ask: its browser names the site.
        if origin is not None and _place(origin)[0] != host:
            raise Refused(403, "pages of another site may not ask")
        if not self.limits.token:
            # Nor may one that got its name to mean this address.
            if not is_loopback(_place(f"//{host}")[1]):
                raise Refused(403, "only this machine is served; use http://127.0.0.1")
        elif secret:
            given = request.headers.get("authorization", "").encode("latin-1")  # as it was sent
            kind, _, token = given.partition(b" ")
            same = hmac.compare_digest(token.strip(), self.limits.token.encode())
            if kind.lower() != b"bearer" or not same:
                raise Refused(401, "the token is wrong or missing: send Authorization: Bearer …",
                              code="invalid_api_key")  # fmt: skip

    async def page(self, request: Request) -> Response:
        """The web page."""
        text = PAGE.read_text("utf-8")
        return HTMLResponse(text, headers={"Content-Security-Policy": policy(text)})

    async def models(self, request: Request) -> Response:
        """The list of models: this one."""
        return JSONResponse({"object": "list", "data": [self.model]})

    async def one_model(self, request: Request) -> Response:
        """What is known of a model."""
        check_model(request.path_params["name"], self.opened)
        return JSONResponse(self.model)

    def answering(self, kind: str) -> Handler:
        """The handler of chat completions or of completions."""

        async def answer(request: Request) -> Response:
            raw = await self._body(request)
            query = await self._parsed(raw, kind)
            draws = Draws(query, self.engine, request)
            answers = Answers(query, self.opened.name, self.opened.model.tokenizer)
            if query.stream:
                events = draws.events(answers)
                return StreamingResponse(events, media_type="text/event-stream")
            return JSONResponse(answers.whole(await draws.whole(), draws.requests))

        return answer

    async def _parsed(self, raw: bytes, kind: str) -> Query:
        """The query in a body. Those that are being read count as requests that wait."""
        most = self.engine.n_slots + self.engine.waiting
        if sum(self.engine.active()) + self.parsing >= most:
            raise Refused(429, f"{most} requests are served or wait; try later",
                          code="too_many_requests")  # fmt: skip
        self.parsing += 1
        try:
            return await asyncio.to_thread(parse, raw, kind, self.opened, self.engine)
        finally:
            self.parsing -= 1

    async def _body(self, request: Request) -> bytes:
        """The body. Refused with 413 if it is too large, after it was read and dropped: a client
        that still writes would not read the answer."""
        most, size, kept = self.limits.body, 0, bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for part in request.stream():
                    size += len(part)
                    if size <= most:
                        kept += part
                    elif size > DRAINED * most:
                        break
        except TimeoutError:
            raise Refused(408, f"the body did not come within {BODY_SECONDS:.0f} s") from None
        if size > most:
            raise Refused(413, f"the body has more than {most} bytes; send less", code="too_large")
        return bytes(kept)


def _place(address: str) -> tuple[str, str]:
    """(host with port, host alone) of an address; both are empty if it cannot be read."""
    try:
        parts = urllib.parse.urlsplit(address)
        return parts.netloc, parts.hostname or ""
    except ValueError:
        return "", ""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Draws:
    """The requests of one query, and their pieces as they come. If the client hangs up, their slots
    become free. Raises Refused with 429 where the engine has no room, with 503 after its end."""

    def __init__(self, query: Query, engine: Engine, http: Request):
        self.engine, self.pieces = engine, asyncio.Queue()
        prompts = zip(query.prompts, query.max_tokens, strict=True)
        each = [pair for pair in prompts for _ in range(query.n)]
        self.requests = [
            drawing.Request(
                prompt,
                room,
                query.sampler,
                self._emit(index),
                query.seed,
                index,
                query.stops,
                query.top or 0,
                query.lead,
            )
            for index, (prompt, room) in enumerate(each)
        ]
        try:
            engine.submit(*self.requests)
        except Ended as ended:
            raise Refused(503, str(ended)) from None
        except Busy as busy:
            raise Refused(429, str(busy), code="too_many_requests") from None
        # A task of its own: the answer may be given up before its first piece is asked for.
        self.watcher = asyncio.create_task(self._watch(http))

    async def _watch(self, http: Request) -> None:
        while (await http.receive())["type"] != "http.disconnect":
            pass
        self.engine.cancel(*self.requests)

    def _emit(self, index: int) -> Callable[[Piece], None]:
        loop = asyncio.get_running_loop()

        def emit(piece: Piece) -> None:
            with contextlib.suppress(RuntimeError):  # the server has ended
                loop.call_soon_threadsafe(self.pieces.put_nowait, (index, piece))

        return emit

    async def _all(self) -> AsyncIterator[tuple[int, Piece]]:
        """The pieces of all requests."""
        try:
            left = len(self.requests)
            while left:
                index, piece = await self.pieces.get()
                left -= piece.end is not None
                yield index, piece
        finally:
            self.watcher.cancel()
            self.engine.cancel(*self.requests)

    async def whole(self) -> list[Piece]:
        """The complete text of each request."""
        found: list[list[Piece]] = [[] for _ in self.requests]
        async with contextlib.aclosing(self._all()) as pieces:
            async for index, piece in pieces:
                if refused := _cut(piece):
                    raise refused
                found[index].append(piece)
        return [drawing.whole(pieces) for pieces in found]

    async def events(self, answers: Answers) -> AsyncIterator[str]:
        """Server-sent events, one a piece."""
        for index in range(len(self.requests)):
            if opening := answers.opening(index):
                yield _event(opening)
        async with contextlib.aclosing(self._all()) as pieces:
            async for index, piece in pieces:
                if refused := _cut(piece):
                    yield _event(refused.body())
                    return
                yield _event(answers.chunk(index, piece))
        if answers.query.usage:
            yield _event(answers.closing(self.requests))
        yield "data: [DONE]\n\n"


def _cut(piece: Piece) -> Refused | None:
    """What a client is told of a reply that is not complete."""
    if piece.end == CANCELLED:
        return Refused(503, "the server is ending; the reply is not complete")
    return Refused(500, piece.error) if piece.end == FAILED else None


def _event(content: dict) -> str:
    # ASCII, because some readers take U+2028 and U+0085 for ends of lines.
    return f"data: {json.dumps(content)}\n\n"


def policy(page: str) -> str:
    """The Content-Security-Policy of the page: its own script and style, its own server."""
    allowed = {}
    for kind in ("script", "style"):
        inside = re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()) for text in inside]
        allowed[kind] = " ".join(f"'sha256-{digest.decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed['script']}; style-src {allowed['style']}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


async def _http_error(request: Request, error: HTTPException) -> Response:
    """Unknown paths and methods."""
    line = f"{request.method} {request.url.path}: {error.detail}"
    return Refused(error.status_code, line).response()


async def _bug(request: Request, error: Exception) -> Response:
    return Refused(500, f"{type(error).__name__} in the server; its log has more").response()
