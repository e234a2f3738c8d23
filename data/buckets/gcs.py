"""Objects of Google Cloud Storage, read and written in known versions (the JSON API).

A lock needs requests of which every attempt ends before the lock is stale, and answers that say how
old an object is by the server's clock. So this is a small client of its own.
"""

import email.utils
import errno
import os
import time
from typing import IO, Any
from urllib.parse import quote

from data.buckets.attempts import (
    TRANSIENT,
    WITHIN,
    Attempt,
    Changed,
    Listed,
    Transient,
    attempts,
)

HOST = "https://storage.googleapis.com"
EMULATOR = "STORAGE_EMULATOR_HOST"
_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
_CONNECT, _READ = 10.0, 60.0  # seconds to connect, and between two bytes, at most


class Gcs:
    """The buckets that this process may use. A version is a generation; "" means no object."""

    def __init__(self):
        import requests  # with google-auth, of the extra [gcs]
        from google.auth.transport.requests import AuthorizedSession

        self._requests = requests
        self.host = os.environ.get(EMULATOR) or HOST
        if "://" not in self.host:
            self.host = f"http://{self.host}"
        if self.host != HOST:
            self._session = requests.Session()
        else:
            self._session = AuthorizedSession(_credentials(), max_refresh_attempts=3)
        self._session.mount(self.host, requests.adapters.HTTPAdapter(pool_maxsize=32))
        self.skew = 0.0  # seconds that the server's clock is ahead of this machine's

    def get(self, url: str, within: float = WITHIN) -> tuple[bytes, str]:
        """(content, version) of an object; FileNotFoundError if there is none."""
        answer = self._again("GET", url, within, params={"alt": "media"})
        return answer.content, answer.headers["x-goog-generation"]

    def look(self, url: str, within: float = WITHIN) -> tuple[bytes, str, float | None]:
        """As `get`, and the seconds since it was written, by the server's clock (None: unknown)."""
        answer = self._again("GET", url, within, params={"alt": "media"})
        now, then = (_seconds(answer.headers.get(k)) for k in ("Date", "Last-Modified"))
        age = None if None in (now, then) else max(0.0, now - then)
        return answer.content, answer.headers["x-goog-generation"], age

    def put(
        self, url: str, content: bytes | IO, expected: str | None = None, within: float = WITHIN
    ) -> str:
        """Writes an object in one request; its version. With `expected`, Changed if the object is
        not in that version before."""
        bucket, name = _split(url)
        params = {"uploadType": "media", "name": name}
        if expected is not None:
            params["ifGenerationMatch"] = expected or "0"
        where = f"{self.host}/upload/storage/v1/b/{bucket}/o"
        for attempt in attempts(url, within):
            with attempt:
                if hasattr(content, "seek"):
                    content.seek(0)
                try:
                    answer = self._once(attempt, "POST", where, url, params=params, data=content)
                    return answer.json()["generation"]
                except Changed:
                    # The answer of an earlier attempt may have been lost after it had succeeded.
                    if attempt.number == 0:
                        raise
                    return self._own(url, content, within)
        raise AssertionError

    def _own(self, url: str, content: bytes | IO, within: float) -> str:
        """The version of an object that holds `content`; Changed if it holds something else."""
        try:
            found, version = self.get(url, within)
        except FileNotFoundError:
            raise Changed(url) from None
        if found != (content if isinstance(content, bytes) else _read(content)):
            raise Changed(url)
        return version

    def remove(self, url: str, expected: str | None = None, within: float = WITHIN) -> None:
        """Deletes an object, if it is there; Changed if it is not in the `expected` version."""
        params = {} if expected is None else {"ifGenerationMatch": expected}
        try:
            self._again("DELETE", url, within, params=params)
        except FileNotFoundError:
            pass

    def listed(self, url: str, within: float = WITHIN) -> dict[str, Listed]:
        """The objects below a folder, by their names relative to it."""
        bucket, prefix = _split(url.rstrip("/") + "/")
        found, page = {}, ""
        where = f"{self.host}/storage/v1/b/{bucket}/o"
        fields = "items(name,size,crc32c,generation),nextPageToken"
        while True:
            params = {"prefix": prefix, "fields": fields} | ({"pageToken": page} if page else {})
            for attempt in attempts(url, within):
                with attempt:
                    answer = self._once(attempt, "GET", where, url, params=params).json()
                    break
            for item in answer.get("items", ()):
                entry = Listed(int(item["size"]), f"crc32c:{item['crc32c']}", item["generation"])
                found[item["name"].removeprefix(prefix)] = entry
            page = answer.get("nextPageToken", "")
            if not page:
                return {name: entry for name, entry in found.items() if name}

    def _again(self, method: str, url: str, within: float, **request: Any) -> Any:
        bucket, name = _split(url)
        where = f"{self.host}/storage/v1/b/{bucket}/o/{quote(name, safe='')}"
        for attempt in attempts(url, within):
            with attempt:
                return self._once(attempt, method, where, url, **request)
        raise AssertionError

    def _once(self, attempt: Attempt, method: str, where: str, url: str, **request: Any) -> Any:
        """One request; raises what its status means."""
        from google.auth.exceptions import GoogleAuthError, TransportError

        timeout = attempt.at_most(_CONNECT), attempt.at_most(_READ)
        try:
            answer = self._session.request(method, where, timeout=timeout, **request)
        except (self._requests.ConnectionError, self._requests.Timeout) as error:
            raise Transient(error) from error
        except self._requests.exceptions.ChunkedEncodingError as error:
            raise Transient(error) from error
        except GoogleAuthError as error:
            if isinstance(error, TransportError) or error.retryable:  # of a token
                raise Transient(error) from error
            raise PermissionError(errno.EACCES, f"{_AS_WHOM} ({error})", url) from error
        if (server := _seconds(answer.headers.get("Date"))) is not None:
            self.skew = server - time.time()
        if answer.status_code in TRANSIENT:
            raise Transient(f"status {answer.status_code}")
        if answer.status_code == 412:
            raise Changed(url)
        if answer.status_code == 404:
            raise FileNotFoundError(errno.ENOENT, "no such object or bucket", url)
        if answer.status_code in (401, 403):
            raise PermissionError(errno.EACCES, f"{_AS_WHOM} ({_said(answer)})", url)
        if answer.status_code >= 300:
            raise OSError(errno.EIO, f"status {answer.status_code}: {_said(answer)}", url)
        return answer


_AS_WHOM = "no permission; run `gcloud auth application-default login` or give this account access"


def _credentials() -> Any:
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    try:
        return google.auth.default(scopes=[_SCOPE])[0]
    except DefaultCredentialsError as error:
        raise PermissionError(
            errno.EACCES, "no credentials for gs://; run `gcloud auth application-default login`"
        ) from error


def _split(url: str) -> tuple[str, str]:
    """(bucket, name) of gs://BUCKET/NAME."""
    bucket, _, name = url.removeprefix("gs://").partition("/")
    return bucket, name


def _said(answer: Any) -> str:
    try:
        return answer.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return " ".join(answer.text[:200].split())


def _seconds(date: str | None) -> float | None:
    parsed = date and email.utils.parsedate_to_datetime(date)
    return parsed.timestamp() if parsed else None


def _read(file: IO) -> bytes:
    file.seek(0)
    return file.read()
