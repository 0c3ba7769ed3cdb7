"""The agent `crypto`: digests and authentication codes.

Invariants: a text is hashed as its UTF-8 bytes and nothing else, so `data` that looks like base64 is not decoded; a
file object is hashed as its content; the secret never shows.
"""

import base64
import hashlib
import hmac
from functools import partial
from typing import Final, Literal

from pydantic import Field, SecretStr

from .agent import agent, capability
from .models import INVALID_DATA, Data, Inputs, Outputs, read_bytes

HashAlgorithm = Literal["sha256", "sha512", "sha1", "md5"]
HmacAlgorithm = Literal["hmac-sha256", "hmac-sha512"]
OutputFormat = Literal["hex", "base64"]
_DIGESTS: Final[dict[HmacAlgorithm, str]] = {"hmac-sha256": "sha256", "hmac-sha512": "sha512"}

pure = partial(capability, idempotent=True)


class HashData(Inputs):
    """Inputs of `hash`."""

    data: Data = Field(description="Text, a byte array or a file object.", examples=["Hello World"])
    algorithm: HashAlgorithm = Field(
        default="sha256", description="SHA-1 and MD5 are for old systems, not for security."
    )
    output_format: OutputFormat = Field(default="hex", description="How the bytes of the digest are written.")


class HmacData(Inputs):
    """Inputs of `hmac`."""

    data: Data = Field(description="Text, a byte array or a file object.", examples=["Hello World"])
    secret: SecretStr = Field(description="The key.")
    algorithm: HmacAlgorithm = Field(default="hmac-sha256", description="The digest that it is made with.")
    output_format: OutputFormat = Field(default="hex", description="How the bytes of the code are written.")


class Digest(Outputs):
    """A digest, and how it was made."""

    hash: str
    algorithm: str
    format: OutputFormat


@agent("crypto", display_name="Crypto")
class Crypto:
    """Digests and message authentication codes."""

    @pure("hash", errors=(INVALID_DATA,))
    def hash(self, inputs: HashData) -> Digest:
        """The digest of a text or file by SHA-256, SHA-512, SHA-1 or MD5."""
        digest = hashlib.new(inputs.algorithm, read_bytes(inputs.data), usedforsecurity=False).digest()
        return Digest(
            hash=_written(digest, inputs.output_format), algorithm=inputs.algorithm, format=inputs.output_format
        )

    @pure("hmac", display_name="HMAC", errors=(INVALID_DATA,))
    def hmac(self, inputs: HmacData) -> Digest:
        """The message authentication code of a text or file by HMAC-SHA256 or HMAC-SHA512."""
        key = inputs.secret.get_secret_value().encode("utf-8", "surrogatepass")
        digest = hmac.digest(key, read_bytes(inputs.data), _DIGESTS[inputs.algorithm])
        return Digest(
            hash=_written(digest, inputs.output_format), algorithm=inputs.algorithm, format=inputs.output_format
        )


def _written(digest: bytes, form: OutputFormat) -> str:
    return digest.hex() if form == "hex" else base64.b64encode(digest).decode()
