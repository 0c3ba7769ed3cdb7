"""The agent `transform`: its capabilities, over `paths` and `values`."""

import json
from functools import partial
from typing import Final, Never

from pydantic import JsonValue

from ..agent import agent, capability
from ..errors import AgentError
from .models import (
    Append,
    Appended,
    ArrayLength,
    Coalesce,
    EnsureArray,
    Ensured,
    Extract,
    Extracted,
    Filter,
    Filtered,
    FilterNonValues,
    FlatMap,
    FromJsonString,
    GetValueByPath,
    GroupBy,
    Grouped,
    Items,
    JsonText,
    Length,
    MapFields,
    Mapped,
    Merge,
    SelectFirst,
    SetValueByPath,
    Sort,
    ToJsonString,
)
from .paths import INVALID_PATH, NOT_SETTABLE, parts_of, value_at, with_value
from .values import is_falsy, is_nothing, is_zero, json_text, key_of, matches, merged, order

JSON_PARSE_ERROR: Final = "TRANSFORM_JSON_PARSE_ERROR"
JSON_SERIALIZE_ERROR: Final = "TRANSFORM_JSON_SERIALIZE_ERROR"
INVALID_INPUT: Final = "TRANSFORM_INVALID_INPUT"

pure = partial(capability, idempotent=True, inline=True)


@agent("transform", display_name="Transform")
class Transform:
    """Takes JSON values apart and puts them together."""

    @pure("extract", display_name="Extract property", errors=(INVALID_PATH,))
    def extract(self, inputs: Extract) -> Extracted:
        """The value at a path of each item of an array; null where there is none."""
        parts = parts_of(inputs.property_path)
        values = [value_at(item, parts) for item in inputs.value]
        return Extracted(values=values, count=len(values))

    @pure("get-value-by-path", display_name="Get value by path", errors=(INVALID_PATH,))
    def get_value_by_path(self, inputs: GetValueByPath) -> JsonValue:
        """The value at a path, or null."""
        return value_at(inputs.value, parts_of(inputs.property_path))

    @pure("set-value-by-path", display_name="Set value by path", errors=(INVALID_PATH, NOT_SETTABLE))
    def set_value_by_path(self, inputs: SetValueByPath) -> JsonValue:
        """A copy of an object with a value at a path; objects on the way are made."""
        parts = parts_of(inputs.property_path)
        return with_value(inputs.target, parts, inputs.value) if parts else inputs.target

    @pure("filter-non-values", display_name="Filter non-values", errors=(INVALID_PATH,))
    def filter_non_values(self, inputs: FilterNonValues) -> Filtered:
        """An array without the items that have no value, in the senses that are switched on."""
        parts = parts_of(inputs.property_path or "")
        return _filtered(inputs.value, [not is_nothing(value_at(item, parts), inputs) for item in inputs.value])

    @pure("select-first", display_name="Select first")
    def select_first(self, inputs: SelectFirst) -> JsonValue:
        """The first item that is not null, false, 0 or a blank text; else null."""
        return next((item for item in inputs.value or () if not is_falsy(item)), None)

    @pure("coalesce", display_name="Coalesce")
    def coalesce(self, inputs: Coalesce) -> JsonValue:
        """The first value that is not null; else null."""
        for value in inputs.values:
            empty = inputs.treat_empty_string_as_null and value == ""
            zero = inputs.treat_zero_as_null and is_zero(value)
            if value is not None and not empty and not zero:
                return value
        return None

    @pure("from-json-string", display_name="Parse JSON", errors=(JSON_PARSE_ERROR,))
    def from_json_string(self, inputs: FromJsonString) -> JsonValue:
        """The value of a JSON text; nothing and the empty text give null."""
        if not inputs.value:
            return None
        try:
            found: JsonValue = json.loads(inputs.value, parse_constant=_no_json)
        except (ValueError, RecursionError) as exc:
            reason = f"it is no JSON: {exc}" if isinstance(exc, ValueError) else "it is nested too deep"
            raise AgentError(JSON_PARSE_ERROR, reason) from None
        return found

    @pure("to-json-string", display_name="Write JSON", errors=(JSON_SERIALIZE_ERROR,))
    def to_json_string(self, inputs: ToJsonString) -> JsonText:
        """A value as compact JSON text."""
        try:
            text = json_text(inputs.value)
        except ValueError as exc:
            raise AgentError(JSON_SERIALIZE_ERROR, f"it has no JSON: {exc}") from None
        return JsonText(json=text, length=len(text))

    @pure("filter", display_name="Filter array", errors=(INVALID_PATH,))
    def filter(self, inputs: Filter) -> Filtered:
        """The items of an array whose value at a path is, or is not, among others, or begins, ends or contains one."""
        parts = parts_of(inputs.property_path)
        items = inputs.value or []
        candidates = inputs.match_values if isinstance(inputs.match_values, list) else [inputs.match_values]
        kept = [matches(value_at(item, parts), inputs.match_condition, candidates) for item in items]
        return _filtered(items, kept)

    @pure("sort", display_name="Sort array", errors=(INVALID_PATH,))
    def sort(self, inputs: Sort) -> Items:
        """An array in order: booleans, numbers, texts, arrays and objects, null; equal ones stay as they were."""
        parts = parts_of(inputs.property_path or "")
        items = sorted(inputs.value, key=lambda item: order(value_at(item, parts)), reverse=not inputs.ascending)
        return Items(items=items, count=len(items))

    @pure("group-by", display_name="Group by", errors=(INVALID_PATH,))
    def group_by(self, inputs: GroupBy) -> Grouped:
        """The items of an array by their value at a path, as text. Items without one are left out."""
        parts = parts_of(inputs.key)
        groups: dict[str, JsonValue] = {}
        found: dict[str, list[JsonValue]] = {}
        for item in inputs.value:
            value = value_at(item, parts)
            if value is not None:
                found.setdefault(key_of(value), []).append(item)
        groups.update(found)
        return Grouped(groups=groups if inputs.as_map else list(groups.values()), group_count=len(groups))

    @pure("map-fields", display_name="Map fields", errors=(INVALID_PATH, NOT_SETTABLE))
    def map_fields(self, inputs: MapFields) -> Mapped:
        """A new object of values from another. A source that is null or not there makes no field."""
        result: JsonValue = {}
        count = 0
        for destination, source in inputs.mappings.items():
            value = value_at(inputs.source_data, parts_of(source))
            if value is not None:
                parts = parts_of(destination)
                if not parts:
                    raise AgentError(INVALID_PATH, "a destination is the path of a field; it cannot be empty")
                result = with_value(result, parts, value)
                count += 1
        return Mapped(result=result if isinstance(result, dict) else {}, field_count=count)

    @pure("merge", display_name="Merge objects", errors=(INVALID_INPUT,))
    def merge(self, inputs: Merge) -> dict[str, JsonValue]:
        """One object of several, the later ones winning. Arrays are replaced, not joined."""
        result: JsonValue = {}
        for index, value in enumerate(inputs.values):
            if value is not None and not isinstance(value, dict):
                reason = f"only objects can be merged; values[{index}] is none"
                raise AgentError(INVALID_INPUT, reason, attributes={"index": index})
            result = result if value is None else merged(result, value, deep=inputs.deep)
        return result if isinstance(result, dict) else {}

    @pure("append", display_name="Append")
    def append(self, inputs: Append) -> Appended:
        """An array with one more item at its end."""
        array = [*inputs.array, inputs.item]
        return Appended(array=array, length=len(array))

    @pure("flat-map", display_name="Flat map", errors=(INVALID_PATH,))
    def flat_map(self, inputs: FlatMap) -> Items:
        """One array of the arrays at a path of each item; items without one give nothing."""
        parts = parts_of(inputs.property_path)
        found = (value_at(item, parts) for item in inputs.value)
        items = [one for array in found if isinstance(array, list) for one in array]
        return Items(items=items, count=len(items))

    @pure("array-length", display_name="Array length")
    def array_length(self, inputs: ArrayLength) -> Length:
        """How long an array or a text is, or how many keys an object has; 0 for anything else."""
        value = inputs.value
        return Length(
            length=len(value) if isinstance(value, list | str | dict) else 0, is_array=isinstance(value, list)
        )

    @pure("ensure-array", display_name="Ensure array")
    def ensure_array(self, inputs: EnsureArray) -> Ensured:
        """The value if it is an array, else an array of it; null gives an empty one."""
        value = inputs.value
        items: list[JsonValue] = value if isinstance(value, list) else [] if value is None else [value]
        return Ensured(items=items, count=len(items), was_array=isinstance(value, list))


def _filtered(items: list[JsonValue], kept: list[bool]) -> Filtered:
    rest = [item for item, keep in zip(items, kept, strict=True) if keep]
    return Filtered(items=rest, count=len(rest), removed_count=len(items) - len(rest))


def _no_json(name: str) -> Never:
    raise ValueError(f"{name} is no number in JSON")
