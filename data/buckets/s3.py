"""Objects of Amazon S3, and of stores with its interface, read and written in known versions."""

import email.utils
import errno
import threading
import time
from typing import IO, Any

from data.buckets.attempts import (
    TRANSIENT,
    WITHIN,
    Attempt,
    Changed,
    Listed,
    Transient,
    attempts,
)

_CONNECT = 10.0  # seconds to connect, at most
_READS = (60.0, 15.0, 4.0, 1.0, 0.2, 0.05)  # seconds to wait for an answer
_MISSING = {"404", "NoSuchKey", "NoSuchBucket"}
_REFUSED = {"403", "401", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
_CHANGED = {"412", "409", "PreconditionFailed", "ConditionalRequestConflict"}


class S3:
    """The buckets that this process may use. A version is an entity tag, which equal contents
    share; "" means no object."""

    def __init__(self):
        import botocore.session  # with s3fs, of the extra [s3]

        self._session, self._turn = botocore.session.get_session(), threading.Lock()
        self._clients: dict[float, Any] = {}  # by the longest wait for an answer
        self._client(_READS[0])
        self.skew = 0.0

    def _client(self, seconds: float) -> Any:
        """The client that waits for at most `seconds` for an answer: a setting of clients, not of
        requests. Botocore's own attempts would hide that an answer was lost."""
        from botocore.config import Config

        read = next((read for read in _READS if read <= seconds), _READS[-1])
        with self._turn:
            if read not in self._clients:
                options = Config(
                    retries={"total_max_attempts": 1},
                    connect_timeout=min(_CONNECT, read),
                    read_timeout=read,
                )
                self._clients[read] = self._session.create_client("s3", config=options)
            return self._clients[read]

    def get(self, url: str, within: float = WITHIN) -> tuple[bytes, str]:
        """(content, version) of an object; FileNotFoundError if there is none."""
        return self.look(url, within)[:2]

    def look(self, url: str, within: float = WITHIN) -> tuple[bytes, str, float | None]:
        """As `get`, and the seconds since it was written, by the server's clock (None: unknown)."""
        for attempt in attempts(url, within):
            with attempt:
                answer = self._once(attempt, "get_object", url)
                try:
                    content = answer["Body"].read()
                except Exception as error:  # a body that ends early, of several libraries
                    raise Transient(error) from error
                age = time.time() + self.skew - answer["LastModified"].timestamp()
                return content, answer["ETag"], max(0.0, age)
        raise AssertionError

    def put(
        self, url: str, content: bytes | IO, expected: str | None = None, within: float = WITHIN
    ) -> str:
        """Writes an object in one request; its version. With `expected`, Changed if the object is
        not in that version before."""
        condition = {} if expected is None else {"IfMatch": expected}
        condition = {"IfNoneMatch": "*"} if expected == "" else condition
        for attempt in attempts(url, within):
            with attempt:
                if hasattr(content, "seek"):
                    content.seek(0)
                try:
                    return self._once(attempt, "put_object", url, Body=content, **condition)["ETag"]
                except (Changed, FileNotFoundError):
                    # The answer of an earlier attempt may have been lost after it had succeeded.
                    if expected is None or attempt.number == 0:
                        raise Changed(url) from None
                    return self._own(url, content, within)
        raise AssertionError

    def _own(self, url: str, content: bytes | IO, within: float) -> str:
        try:
            found, version = self.get(url, within)
        except FileNotFoundError:
            raise Changed(url) from None
        if not isinstance(content, bytes):
            content.seek(0)
            content = content.read()
        if found != content:
            raise Changed(url)
        return version

    def remove(self, url: str, expected: str | None = None, within: float = WITHIN) -> None:
        """Deletes an object, if it is there; Changed if it is not in the `expected` version."""
        condition = {} if expected is None else {"IfMatch": expected}
        for attempt in attempts(url, within):
            with attempt:
                try:
                    self._once(attempt, "delete_object", url, **condition)
                except FileNotFoundError:
                    pass
                return

    def listed(self, url: str, within: float = WITHIN) -> dict[str, Listed]:
        """The objects below a folder, by their names relative to it."""
        bucket, prefix = _split(url.rstrip("/") + "/")
        found, page = {}, {}
        while True:
            for attempt in attempts(url, within):
                with attempt:
                    answer = self._call(
                        attempt, "list_objects_v2", url, Bucket=bucket, Prefix=prefix, **page
                    )
                    break
            for item in answer.get("Contents", ()):
                entry = Listed(item["Size"], f"etag:{item['ETag']}", item["ETag"])
                found[item["Key"].removeprefix(prefix)] = entry
            if not answer.get("IsTruncated"):
                return {name: entry for name, entry in found.items() if name}
            page = {"ContinuationToken": answer["NextContinuationToken"]}

    def _once(self, attempt: Attempt, what: str, url: str, **request: Any) -> dict:
        bucket, key = _split(url)
        return self._call(attempt, what, url, Bucket=bucket, Key=key, **request)

    def _call(self, attempt: Attempt, what: str, url: str, **request: Any) -> dict:
        """One request; raises what its error means."""
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            ConnectionError,
            HTTPClientError,
            NoCredentialsError,
        )

        try:
            answer = getattr(self._client(attempt.at_most(_READS[0])), what)(**request)
        except NoCredentialsError as error:
            raise PermissionError(errno.EACCES, f"{_AS_WHOM} ({error})", url) from error
        except (ConnectionError, HTTPClientError) as error:
            raise Transient(error) from error
        except ClientError as error:
            raise _meaning(error, url) from error
        except BotoCoreError as error:
            raise OSError(errno.EIO, str(error), url) from error
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        if date and (server := email.utils.parsedate_to_datetime(date)):
            self.skew = server.timestamp() - time.time()
        return answer


_AS_WHOM = "no permission; set AWS_PROFILE or AWS_ACCESS_KEY_ID, or give this account access"


def _meaning(error: Any, url: str) -> Exception:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status in TRANSIENT or code in ("SlowDown", "RequestTimeout", "InternalError"):
        return Transient(f"status {status} {code}")
    if code in _CHANGED:
        return Changed(url)
    if code in _MISSING:
        return FileNotFoundError(errno.ENOENT, "no such object or bucket", url)
    if code in _REFUSED:
        return PermissionError(errno.EACCES, f"{_AS_WHOM} ({error})", url)
    return OSError(errno.EIO, str(error), url)


def _split(url: str) -> tuple[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key
