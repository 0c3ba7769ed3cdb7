"""What the capabilities of `transform` take and give."""

from typing import Annotated, Literal

from pydantic import AliasChoices, Field, JsonValue

from ..models import Inputs, Outputs

MatchCondition = Literal["INCLUDES", "EXCLUDES", "STARTS_WITH", "ENDS_WITH", "CONTAINS"]

_PATH = 'Path to a property: names and indices by dots, [0], [-1] or ["a name"]; `$.` in front is allowed.'
Array = Annotated[list[JsonValue], Field(description="The array.")]
Path = Annotated[str, Field(description=_PATH, examples=["customer.name", "lines[0].price"])]
OptionalPath = Annotated[
    str | None, Field(description=f"{_PATH} Without one, each item itself.", examples=["customer.name"])
]


class Extract(Inputs):
    """Inputs of `extract`."""

    value: Array = Field(examples=[[{"name": "Alice"}, {"name": "Bob"}]])
    property_path: Path


class GetValueByPath(Inputs):
    """Inputs of `get-value-by-path`."""

    value: JsonValue = Field(default=None, description="The value to look into.")
    property_path: Path


class SetValueByPath(Inputs):
    """Inputs of `set-value-by-path`."""

    target: JsonValue = Field(description="The object to change a copy of.")
    property_path: Path
    value: JsonValue = Field(default=None, description="The value to set.")


class FilterNonValues(Inputs):
    """Inputs of `filter-non-values`."""

    value: Array = Field(examples=[[{"x": 1}, {"x": None}, {"x": ""}]])
    property_path: OptionalPath = None
    filter_empty_strings: bool = Field(default=False, description="Leave out the empty text.")
    filter_null_values: bool = Field(default=False, description="Leave out null, and what is not there.")
    filter_blank_strings: bool = Field(default=False, description="Leave out texts of white space only.")
    filter_zero_values: bool = Field(default=False, description="Leave out 0 and the text 0.")


class SelectFirst(Inputs):
    """Inputs of `select-first`."""

    value: list[JsonValue] | None = Field(default=None, description="The array.", examples=[[None, "", 0, "hello"]])


class Coalesce(Inputs):
    """Inputs of `coalesce`."""

    values: Array = Field(examples=[[None, 42, "fallback"]])
    treat_empty_string_as_null: bool = Field(default=False, description="Go past empty texts too.")
    treat_zero_as_null: bool = Field(default=False, description="Go past 0 too.")


class FromJsonString(Inputs):
    """Inputs of `from-json-string`."""

    value: str | None = Field(
        default=None, description="JSON text; nothing gives null.", examples=['{"name": "Alice"}']
    )


class ToJsonString(Inputs):
    """Inputs of `to-json-string`."""

    value: JsonValue = Field(default=None, description="The value.", examples=[{"name": "Alice"}])


class Filter(Inputs):
    """Inputs of `filter`."""

    value: list[JsonValue] | None = Field(default=None, description="The array; null is an empty one.")
    property_path: str = Field(default="", description=f"{_PATH} Empty or `$`: each item itself.", examples=["status"])
    match_values: JsonValue = Field(description="What to compare with: one value or an array.", examples=[["active"]])
    match_condition: MatchCondition = Field(default="INCLUDES", description="Which items to keep.")


class Sort(Inputs):
    """Inputs of `sort`."""

    value: Array = Field(examples=[[{"age": 35}, {"age": 25}]])
    property_path: OptionalPath = None
    ascending: bool = Field(default=True, description="Whether the smallest is first.")


class GroupBy(Inputs):
    """Inputs of `group-by`."""

    value: Array = Field(examples=[[{"status": "new"}, {"status": "paid"}]])
    key: Path
    as_map: bool = Field(default=False, description="Whether the groups are an object by key instead of an array.")


class MapFields(Inputs):
    """Inputs of `map-fields`."""

    source_data: JsonValue = Field(
        description="Where the values are taken from.", validation_alias=AliasChoices("source_data", "source")
    )
    mappings: dict[str, str] = Field(
        description="Destination path to source path, as in `property_path`.",
        examples=[{"customer.name": "$.firstName"}],
        validation_alias=AliasChoices("mappings", "mapping"),
    )


class Merge(Inputs):
    """Inputs of `merge`."""

    values: list[JsonValue] = Field(
        description="Objects, the later ones winning; null is skipped.", examples=[[{"a": 1}, {"b": 2}]]
    )
    deep: bool = Field(default=True, description="Whether objects within are merged too, instead of replaced.")


class Append(Inputs):
    """Inputs of `append`."""

    array: Array
    item: JsonValue = Field(default=None, description="The item to put at the end.")


class FlatMap(Inputs):
    """Inputs of `flat-map`."""

    value: Array = Field(examples=[[{"items": [1, 2]}, {"items": [3]}]])
    property_path: Path


class ArrayLength(Inputs):
    """Inputs of `array-length`."""

    value: JsonValue = Field(default=None, description="An array, a text or an object.")


class EnsureArray(Inputs):
    """Inputs of `ensure-array`."""

    value: JsonValue = Field(default=None, description="Any value.")


class Extracted(Outputs):
    """One value for each item; null where there was none."""

    values: list[JsonValue]
    count: int


class Filtered(Outputs):
    """What was kept."""

    items: list[JsonValue]
    count: int
    removed_count: int


class Items(Outputs):
    """An array and its length."""

    items: list[JsonValue]
    count: int


class JsonText(Outputs):
    """A JSON text and its length in characters."""

    json_: str = Field(alias="json")
    length: int


class Grouped(Outputs):
    """The groups, an array of arrays or an object of arrays, in the order in which their keys appeared."""

    groups: JsonValue
    group_count: int


class Mapped(Outputs):
    """The new object, and how many fields were found."""

    result: dict[str, JsonValue]
    field_count: int


class Appended(Outputs):
    """The longer array."""

    array: list[JsonValue]
    length: int


class Length(Outputs):
    """Items of an array, characters of a text, keys of an object; 0 of anything else."""

    length: int
    is_array: bool


class Ensured(Outputs):
    """An array of the value, or the value that was one. Null gives an empty one."""

    items: list[JsonValue]
    count: int
    was_array: bool
