"""The ways in which a request fails, each with its code and whether trying again can help.

The first four codes are those that the handlers of existing JSON workflows know.

Invariants: what the network does and 5xx and 429 are transient, everything else is permanent; no text holds the query
or the login part of an address, where secrets are common.
"""

import ssl
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

import httpx

from ..errors import AgentError

RATE_LIMITED: Final = "HTTP_429"
CLIENT_ERROR: Final = "HTTP_4XX"
SERVER_ERROR: Final = "HTTP_5XX"
NETWORK_ERROR: Final = "NETWORK_ERROR"
TLS_ERROR: Final = "HTTP_TLS_ERROR"
TOO_MANY_REDIRECTS: Final = "HTTP_TOO_MANY_REDIRECTS"
RESPONSE_TOO_LARGE: Final = "HTTP_RESPONSE_TOO_LARGE"
INVALID_RESPONSE: Final = "HTTP_INVALID_RESPONSE"
INVALID_REQUEST: Final = "HTTP_INVALID_REQUEST"
ADDRESS_BLOCKED: Final = "HTTP_ADDRESS_BLOCKED"
OTHER_ORIGIN: Final = "HTTP_OTHER_ORIGIN"
CODES: Final = (
    RATE_LIMITED, CLIENT_ERROR, SERVER_ERROR, NETWORK_ERROR, TLS_ERROR, TOO_MANY_REDIRECTS,
    RESPONSE_TOO_LARGE, INVALID_RESPONSE, INVALID_REQUEST, ADDRESS_BLOCKED, OTHER_ORIGIN,
)  # fmt: skip

_BODY_SHOWN: Final = 2_000  # characters of an error's answer; the rest is seldom read


def shown(url: httpx.URL) -> str:
    """An address as errors may name it."""
    return str(url.copy_with(username=None, password=None, query=None, fragment=None))


def refused_status(url: httpx.URL, status: int, headers: httpx.Headers, text: str) -> AgentError:
    """The error of an answer with a status of 400 or more."""
    code = RATE_LIMITED if status == 429 else CLIENT_ERROR if status < 500 else SERVER_ERROR
    transient = code != CLIENT_ERROR
    return AgentError(
        code,
        f"{shown(url)} answered {status}",
        category="transient" if transient else "permanent",
        retry_after=retry_after(headers) if transient else None,
        attributes={"status_code": status, "url": shown(url), "body": text[:_BODY_SHOWN]},
    )


def retry_after(headers: httpx.Headers) -> timedelta | None:
    """What the header says, seconds or a date; a date counts from the server's own clock where it tells it."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdecimal():
        return timedelta(seconds=min(int(text), 10**9))
    due, now = _date(text), _date(headers.get("date", "")) or datetime.now(UTC)
    return None if due is None else max(due - now, timedelta(0))


def unreachable(url: httpx.URL, error: httpx.TransportError) -> AgentError:
    """The error of a connection that could not be made, broke, or spoke no HTTP."""
    cause = _verification(error)
    if cause is not None:
        message = f"the certificate of {url.host} is not trusted: {cause.verify_message}"
        return AgentError(TLS_ERROR, message, attributes={"url": shown(url)})
    if isinstance(error, (httpx.LocalProtocolError, httpx.UnsupportedProtocol)):
        # the error's own text shows the header that it complains of, escaped, so that no redaction would find it
        return AgentError(INVALID_REQUEST, f"the request to {shown(url)} cannot be written as HTTP")
    return AgentError(
        NETWORK_ERROR,
        f"{shown(url)} cannot be reached, or did not answer fully: {str(error) or type(error).__name__}",
        category="transient",
        attributes={"url": shown(url)},
    )


def timed_out(url: httpx.URL, seconds: float) -> AgentError:
    """The error of a request that took too long."""
    return AgentError(
        NETWORK_ERROR, f"{shown(url)} did not answer fully within {seconds:g} s", category="transient",
        attributes={"url": shown(url), "seconds": seconds},
    )  # fmt: skip


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _verification(error: BaseException) -> ssl.SSLCertVerificationError | None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None
