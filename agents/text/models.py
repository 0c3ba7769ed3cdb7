"""What the capabilities of `text` take."""

from typing import Annotated, Final, Literal

from pydantic import AliasChoices, Field, JsonValue

from ..models import Data, Inputs

LENGTH: Final = 1_000_000  # that a text may be padded to
SHINGLES: Final = (2, 8)  # lengths of n-grams that tell texts apart and are not the texts themselves

Case = Literal["lowercase", "uppercase", "title-case"]
Side = Literal["left", "right", "both"]
Comparison = Literal[
    "exact",
    "case-insensitive",
    "contains",
    "levenshtein-distance",
    "jaro-similarity",
    "jaro-winkler-similarity",
    "ngram-jaccard",
    "ngram-overlap",
]
IgnoreCase = Annotated[bool, Field(description="Whether a letter matches its other case.")]
Pattern = Annotated[str, Field(description="A regular expression, as in Python.", examples=[r"Order #(\d+)"])]


class PlainText(Inputs):
    """One text."""

    text: str = Field(description="The text.", examples=["Hello World"])


class RenderTemplate(PlainText):
    """Inputs of `render-template`."""

    text: str = Field(description="A Jinja2 template.", examples=["Hello {{ name }}, you have {{ count }} messages"])
    context: dict[str, JsonValue] = Field(
        default={}, description="What the template may use, by name.", examples=[{"name": "Alice", "count": 5}]
    )


class CaseConversion(PlainText):
    """Inputs of `case-conversion`."""

    format: Case = Field(default="lowercase", description="The case to convert to.")


class FindReplace(PlainText):
    """Inputs of `find-replace`."""

    pattern: str = Field(description="The text to look for, letter by letter.", min_length=1, examples=["World"])
    replacement: str = Field(default="", description="What takes its place.", examples=["Universe"])


class RemoveCharacters(PlainText):
    """Inputs of `remove-characters`."""

    pattern: str = Field(default="", description="The characters to take out, each of them.", examples=[",!"])


class Split(PlainText):
    """Inputs of `split`."""

    delimiter: str = Field(default=",", min_length=1, description="What lies between the parts.")


class SplitJoin(Split):
    """Inputs of `split-join`."""

    join_delimiter: str = Field(default=" ", description="What to put between them instead.", examples=[" - "])


class CollapseExpandLines(PlainText):
    """Inputs of `collapse-expand-lines`."""

    delimiter: str | None = Field(
        default=None, min_length=1, description="Makes a line of each part between it; without it, lines become one."
    )


class SubstringExtraction(PlainText):
    """Inputs of `substring-extraction`."""

    start_delimiter: str = Field(min_length=1, description="What comes before.", examples=["["])
    end_delimiter: str = Field(min_length=1, description="What comes behind.", examples=["]"])


class AsByteArray(PlainText):
    """Inputs of `as-byte-array`."""

    encoding: str = Field(default="UTF-8", description="The encoding of the bytes.")


class FromBase64(Inputs):
    """Inputs of `from-base64`."""

    data: Data = Field(description="Base64 text, or a file object.")
    encoding: str = Field(default="UTF-8", description="The encoding of the bytes, or auto.", examples=["ISO-8859-1"])


class ToBase64(Inputs):
    """Inputs of `to-base64`."""

    data: Data = Field(description="Text, a byte array or a file object.")
    filename: str | None = Field(default=None, description="The file's name.", examples=["document.txt"])
    mime_type: str | None = Field(
        default=None,
        description="The file's media type.",
        examples=["text/plain"],
        validation_alias=AliasChoices("mime_type", "mimeType"),
    )


class RegexReplace(PlainText):
    """Inputs of `regex-replace`."""

    pattern: Pattern
    replacement: str = Field(
        default="", description="What takes its place: $1, $name and ${name} are groups, $0 all, $$ a dollar sign."
    )
    global_: bool = Field(
        default=True,
        description="Whether to replace all matches, and not just the first.",
        validation_alias=AliasChoices("global", "global_"),
        serialization_alias="global",
    )
    case_insensitive: IgnoreCase = False


class RegexMatch(PlainText):
    """Inputs of `regex-match`."""

    pattern: Pattern
    capture_group: int = Field(default=0, ge=0, description="Which group to give; 0: the whole match.")
    all_matches: bool = Field(default=False, description="Whether to give all matches, as an array.")
    case_insensitive: IgnoreCase = False


class RegexTest(PlainText):
    """Inputs of `regex-test`."""

    pattern: Pattern
    case_insensitive: IgnoreCase = False


class RegexSplit(PlainText):
    """Inputs of `regex-split`."""

    pattern: Pattern
    limit: int = Field(default=0, ge=0, description="How many parts at most; 0: as many as there are.")


class PadText(PlainText):
    """Inputs of `pad-text`."""

    length: int = Field(ge=0, le=LENGTH, description="Characters that the text has at least.", examples=[10])
    pad_char: str = Field(default=" ", min_length=1, description="What to fill up with: its first character.")
    direction: Side = Field(default="right", description="Where to fill up.")


class TruncateText(PlainText):
    """Inputs of `truncate-text`."""

    max_length: int = Field(ge=0, description="Characters that the result has at most.", examples=[20])
    suffix: str = Field(default="", description="What to end with if something was cut off.", examples=["..."])
    word_boundary: bool = Field(default=False, description="Whether to cut between words only.")


class WrapText(PlainText):
    """Inputs of `wrap-text`."""

    width: int = Field(default=80, ge=1, description="Characters a line at most.")
    preserve_newlines: bool = Field(default=True, description="Whether the line ends of the text stay.")


class ExtractNumbers(PlainText):
    """Inputs of `extract-numbers`."""

    include_decimals: bool = Field(default=True, description="Whether 1.5 is one number.")
    include_negative: bool = Field(default=False, description="Whether a minus before a number belongs to it.")


class CompareText(Inputs):
    """Inputs of `compare-text`."""

    text_a: str = Field(description="One text.", validation_alias=AliasChoices("text_a", "text"))
    text_b: str = Field(description="The other.", validation_alias=AliasChoices("text_b", "other"))
    mode: Comparison = Field(
        default="exact", description="Equality, whether a contains b, an edit distance, or a likeness from 0 to 1."
    )
    ngram_n: int = Field(default=3, ge=SHINGLES[0], le=SHINGLES[1], description="Length of the n-grams.")


class CountOccurrences(PlainText):
    """Inputs of `count-occurrences`."""

    pattern: str = Field(description="What to count.", examples=["the"])
    use_regex: bool = Field(default=False, description="Whether it is a regular expression.")
    case_insensitive: IgnoreCase = False
