"""Refusals of a request, in the shape that clients of OpenAI's API understand."""

from starlette.responses import JSONResponse

KINDS = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
         404: "invalid_request_error", 405: "invalid_request_error", 408: "timeout_error",
         413: "invalid_request_error", 429: "rate_limit_error"}  # fmt: skip


class Refused(Exception):
    """A request that is not served: HTTP status, one line, the parameter that is wrong."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ):
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def body(self) -> dict:
        """{"error": …} as OpenAI's API writes it."""
        kind = KINDS.get(self.status, "server_error")
        about = dict(message=str(self), type=kind, param=self.param, code=self.code)
        return {"error": about}

    def response(self) -> JSONResponse:
        """The answer to the client."""
        headers = {"Retry-After": "1"} if self.status == 429 else {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body(), self.status, headers)
