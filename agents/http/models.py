"""What an HTTP request is made from, and what comes of it."""

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, JsonValue, SkipValidation

from ..models import Inputs, Outputs

MAX_TIMEOUT_MS: Final = 3_600_000  # an hour; what takes longer is better asked about from time to time

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
BodyType = Literal["json", "text", "binary", "multipart", "form"]
ResponseType = Literal["json", "text", "binary"]
Scalar = str | int | float | bool | None


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


class HttpRequest(Inputs):
    """A request."""

    method: Annotated[Method, BeforeValidator(_upper)] = Field(default="GET", description="The method.")
    url: str = Field(
        min_length=1,
        description="The address. One without a scheme is appended to the connection's `base_url`.",
        examples=["https://api.example.org/orders", "orders/17"],
    )
    headers: dict[str, str] = Field(default={}, description="Headers by name.")
    query_parameters: dict[str, Scalar | list[Scalar]] = Field(
        default={}, description="Added to the address; a list repeats its name, null leaves it out."
    )
    body: JsonValue = Field(
        default=None,
        description="The body; null sends none. By `body_type`: any value; text; base64, bytes or a file object; an "
        "object of fields, whose values may be file objects; an object of fields.",
    )
    body_type: BodyType = Field(default="json", description="How the body is written.")
    response_type: ResponseType = Field(default="json", description="How the answer's body is read; binary: as base64.")
    timeout_ms: int = Field(
        default=30_000, ge=1, le=MAX_TIMEOUT_MS, description="How long all of it may take, redirects included."
    )
    fail_on_error: bool = Field(default=True, description="Whether a status of 400 or more is an error.")


class HttpResponse(Outputs):
    """An answer."""

    status_code: int
    headers: dict[str, str] = Field(description="By name in lower case; a header that came twice is joined by commas.")
    body: Annotated[JsonValue, SkipValidation] = Field(description="By `response_type`; null if there is none.")
    success: bool = Field(description="Whether the status is 200 to 299.")
