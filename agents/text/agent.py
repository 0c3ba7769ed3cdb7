"""The agent `text`: its capabilities, over `shaping`, `searching` and `likeness`.

Those that take time in proportion to more than their text run in a thread; the others are done where they are asked
for.
"""

import base64
import hashlib
from functools import partial
from typing import Final, assert_never

from ..agent import agent, capability
from ..encoding import UNKNOWN_ENCODING, WRONG_ENCODING, codec_named, decoded
from ..errors import AgentError
from ..models import INVALID_DATA, FileObject, decode_base64, read_bytes
from ..patterns import INVALID_REGEX, REGEX_TIMEOUT, TOO_LONG, check_length
from ..templates import PARSE_ERROR, REFUSED, RENDER_ERROR, TOO_LARGE, render
from . import likeness, searching, shaping
from .models import (
    AsByteArray,
    CaseConversion,
    CollapseExpandLines,
    CompareText,
    CountOccurrences,
    ExtractNumbers,
    FindReplace,
    FromBase64,
    PadText,
    PlainText,
    RegexMatch,
    RegexReplace,
    RegexSplit,
    RegexTest,
    RemoveCharacters,
    RenderTemplate,
    Split,
    SplitJoin,
    SubstringExtraction,
    ToBase64,
    TruncateText,
    WrapText,
)

_PATTERN: Final = (INVALID_REGEX, REGEX_TIMEOUT)

quick = partial(capability, idempotent=True, inline=True)
slow = partial(capability, idempotent=True)


@agent("text", display_name="Text")
class Text:
    """Shapes, searches, compares and converts texts."""

    @slow("render-template", errors=(PARSE_ERROR, RENDER_ERROR, REFUSED, TOO_LARGE))
    def render_template(self, inputs: RenderTemplate) -> str:
        """Fill in a Jinja2 template. What is undefined renders as nothing, arrays and objects as JSON.

        It runs in a sandbox: no files, no imports, nothing of Python's insides, and bounds on work, time and length.
        """
        return render(inputs.text, inputs.context)

    @quick("trim-normalize")
    def trim_normalize(self, inputs: PlainText) -> str:
        """The text without white space at its ends, and with single spaces inside."""
        return " ".join(inputs.text.split())

    @quick("extract-first-line")
    def extract_first_line(self, inputs: PlainText) -> str:
        """What stands before the first line end."""
        return shaping.lines_of(inputs.text)[0]

    @quick("extract-first-word")
    def extract_first_word(self, inputs: PlainText) -> str:
        """What stands before the first white space."""
        return next(iter(inputs.text.split(None, 1)), "").rstrip()

    @quick("slugify")
    def slugify(self, inputs: PlainText) -> str:
        """The text as part of an address: small ASCII letters without their accents, digits and hyphens."""
        return shaping.slug(inputs.text)

    @quick("hash-text")
    def hash_text(self, inputs: PlainText) -> str:
        """The SHA-256 of the text in UTF-8, in hexadecimal digits."""
        return hashlib.sha256(inputs.text.encode("utf-8", "surrogatepass")).hexdigest()

    @quick("case-conversion")
    def case_conversion(self, inputs: CaseConversion) -> str:
        """The text in small letters, capitals, or with a capital at each word."""
        match inputs.format:
            case "lowercase":
                return inputs.text.lower()
            case "uppercase":
                return inputs.text.upper()
            case "title-case":
                return shaping.title(inputs.text)
            case _:
                assert_never(inputs.format)

    @quick("find-replace", errors=(TOO_LONG,))
    def find_replace(self, inputs: FindReplace) -> str:
        """The text with all occurrences of one text replaced by another."""
        more = len(inputs.replacement) - len(inputs.pattern)
        check_length(len(inputs.text) + inputs.text.count(inputs.pattern) * max(more, 0))
        return inputs.text.replace(inputs.pattern, inputs.replacement)

    @quick("remove-characters")
    def remove_characters(self, inputs: RemoveCharacters) -> str:
        """The text without some characters."""
        return inputs.text.translate(dict.fromkeys(map(ord, inputs.pattern)))

    @quick("split")
    def split(self, inputs: Split) -> list[str]:
        """The parts of the text between a delimiter; none of an empty text."""
        return inputs.text.split(inputs.delimiter) if inputs.text else []

    @quick("split-join", errors=(TOO_LONG,))
    def split_join(self, inputs: SplitJoin) -> str:
        """The parts between one delimiter, trimmed and joined by another."""
        parts = [part.strip() for part in inputs.text.split(inputs.delimiter)]
        check_length(len(inputs.text) + len(parts) * len(inputs.join_delimiter))
        return inputs.join_delimiter.join(parts)

    @quick("substring-extraction")
    def substring_extraction(self, inputs: SubstringExtraction) -> str:
        """What stands between two delimiters for the first time; empty if nothing does."""
        _, _, rest = inputs.text.partition(inputs.start_delimiter)
        found, end, _ = rest.partition(inputs.end_delimiter)
        return found if end else ""

    @quick("collapse-expand-lines")
    def collapse_expand_lines(self, inputs: CollapseExpandLines) -> str:
        """All lines in one, or a line for each part between a delimiter."""
        if inputs.delimiter is None:
            return " ".join(line.strip() for line in shaping.lines_of(inputs.text))
        return "\n".join(part.strip() for part in inputs.text.split(inputs.delimiter))

    @quick("as-byte-array", errors=(UNKNOWN_ENCODING, WRONG_ENCODING))
    def as_byte_array(self, inputs: AsByteArray) -> list[int]:
        """The bytes of the text in an encoding."""
        name = codec_named(inputs.encoding)
        try:
            return list(inputs.text.encode(name))
        except UnicodeEncodeError as exc:
            reason = f"{inputs.text[exc.start]!r} cannot be written in {name}; use UTF-8"
            raise AgentError(WRONG_ENCODING, reason, attributes={"encoding": name}) from None

    @quick("from-base64", errors=(INVALID_DATA, UNKNOWN_ENCODING, WRONG_ENCODING))
    def from_base64(self, inputs: FromBase64) -> str:
        """The text that base64 or a file object holds."""
        data = inputs.data
        plain = isinstance(data, str) and not data.startswith("data:")
        content = decode_base64(str(data), "the data") if plain else read_bytes(data)
        return decoded(content, inputs.encoding)

    @quick("to-base64", errors=(INVALID_DATA,))
    def to_base64(self, inputs: ToBase64) -> FileObject:
        """A file object of a text (in UTF-8), of bytes, or of another file object with a new name or type."""
        given = inputs.data if isinstance(inputs.data, FileObject) else None
        return FileObject(
            content=base64.b64encode(read_bytes(inputs.data)).decode(),
            filename=inputs.filename or (given.filename if given else None),
            mime_type=inputs.mime_type or (given.mime_type if given else None),
        )

    @slow("regex-replace", errors=(*_PATTERN, TOO_LONG))
    def regex_replace(self, inputs: RegexReplace) -> str:
        """The text with what a regular expression matches replaced."""
        return searching.replaced(inputs)

    @slow("regex-match", errors=_PATTERN)
    def regex_match(self, inputs: RegexMatch) -> str | list[str] | None:
        """What a regular expression, or a group of it, matches first: a text or null; or all of it: an array."""
        return searching.all_matches(inputs) if inputs.all_matches else searching.first_match(inputs)

    @slow("regex-test", errors=_PATTERN)
    def regex_test(self, inputs: RegexTest) -> bool:
        """Whether a regular expression matches anywhere in the text."""
        return searching.is_found(inputs)

    @slow("regex-split", errors=_PATTERN)
    def regex_split(self, inputs: RegexSplit) -> list[str]:
        """The parts of the text between what a regular expression matches; none of an empty text."""
        return searching.parts(inputs)

    @quick("pad-text")
    def pad_text(self, inputs: PadText) -> str:
        """The text, filled up to a length."""
        return shaping.padded(inputs.text, inputs.length, inputs.pad_char[0], inputs.direction)

    @quick("truncate-text")
    def truncate_text(self, inputs: TruncateText) -> str:
        """The text, cut to a length, with a suffix if it was."""
        return shaping.truncated(inputs.text, inputs.max_length, inputs.suffix, at_words=inputs.word_boundary)

    @quick("wrap-text")
    def wrap_text(self, inputs: WrapText) -> str:
        """The text in lines of a length at most. Words that are longer are cut."""
        return shaping.wrapped(inputs.text, inputs.width, keep_lines=inputs.preserve_newlines)

    @quick("extract-numbers")
    def extract_numbers(self, inputs: ExtractNumbers) -> list[int | float]:
        """All numbers in the text, in its order."""
        return searching.numbers(inputs.text, decimals=inputs.include_decimals, negative=inputs.include_negative)

    @quick("extract-emails")
    def extract_emails(self, inputs: PlainText) -> list[str]:
        """All e-mail addresses in the text, in its order."""
        return searching.emails(inputs.text)

    @quick("extract-urls")
    def extract_urls(self, inputs: PlainText) -> list[str]:
        """All http, https and ftp addresses in the text, without the punctuation of the sentence behind them."""
        return searching.urls(inputs.text)

    @slow("compare-text", errors=(TOO_LONG,))
    def compare_text(self, inputs: CompareText) -> bool | int | float:
        """Whether two texts are equal, or how alike they are: an edit distance, or a likeness from 0 to 1."""
        return _compared(inputs.text_a, inputs.text_b, inputs)

    @slow("count-occurrences", errors=_PATTERN)
    def count_occurrences(self, inputs: CountOccurrences) -> int:
        """How often a text, or a regular expression, is found, without overlaps."""
        return searching.count(inputs)


def _compared(a: str, b: str, inputs: CompareText) -> bool | int | float:
    match inputs.mode:
        case "exact":
            return a == b
        case "case-insensitive":
            return a.casefold() == b.casefold()
        case "contains":
            return b in a
        case "levenshtein-distance":
            return likeness.levenshtein(a, b)
        case "jaro-similarity":
            return likeness.jaro(a, b)
        case "jaro-winkler-similarity":
            return likeness.jaro_winkler(a, b)
        case "ngram-jaccard":
            return likeness.ngram_jaccard(a, b, inputs.ngram_n)
        case "ngram-overlap":
            return likeness.ngram_overlap(a, b, inputs.ngram_n)
        case _:
            assert_never(inputs.mode)
