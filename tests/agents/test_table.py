"""The agents for data have the capabilities, inputs and defaults that JSON workflows were promised."""

from typing import Final

import pytest

from runtara.agents.registry import registry

CAPABILITIES: Final = {
    "csv": "from-csv to-csv get-header",
    "xml": "from-xml to-xml",
    "transform": "extract get-value-by-path set-value-by-path filter-non-values select-first coalesce from-json-string"
    " to-json-string filter sort group-by map-fields merge append flat-map array-length ensure-array",
    "text": "render-template trim-normalize extract-first-line extract-first-word slugify hash-text case-conversion"
    " find-replace remove-characters split split-join substring-extraction collapse-expand-lines as-byte-array"
    " from-base64 to-base64 regex-replace regex-match regex-test regex-split pad-text truncate-text wrap-text"
    " extract-numbers extract-emails extract-urls compare-text count-occurrences",
    "utils": "random-double random-array return-input do-nothing delay-in-ms calculate get-current-unix-timestamp"
    " get-current-iso-datetime format-date-from-iso iso-to-unix-timestamp country-name-to-iso-code",
    "datetime": "get-current-date format-date add-to-date subtract-from-date get-time-between extract-date-part"
    " round-date date-to-unix unix-to-date",
    "crypto": "hash hmac",
    "compression": "create-archive extract-archive extract-file list-archive",
}
OF_CSV: Final = {"encoding": "UTF-8", "delimiter": ",", "quote_char": '"', "escape_char": None, "use_header": True}
CSV: Final = {**OF_CSV, "skip_empty_lines": True, "trim_whitespace": False}
REQUIRED: Final = object()
INPUTS: Final[dict[tuple[str, str], dict[str, object]]] = {
    ("csv", "from-csv"): {"data": REQUIRED, **CSV},
    ("csv", "to-csv"): {"value": REQUIRED, **CSV},
    ("csv", "get-header"): {"data": REQUIRED, **CSV},
    ("xml", "from-xml"): {
        "data": REQUIRED,
        "encoding": None,
        "preserve_text": True,
        "include_attributes": True,
        "trim_text": True,
    },
    ("xml", "to-xml"): {"value": REQUIRED, "root": None, "indent": 0, "declaration": True},
    ("transform", "extract"): {"value": REQUIRED, "property_path": REQUIRED},
    ("transform", "filter-non-values"): {
        "value": REQUIRED,
        "property_path": None,
        "filter_empty_strings": False,
        "filter_null_values": False,
        "filter_blank_strings": False,
        "filter_zero_values": False,
    },
    ("transform", "coalesce"): {
        "values": REQUIRED,
        "treat_empty_string_as_null": False,
        "treat_zero_as_null": False,
    },
    ("transform", "filter"): {
        "value": None,
        "property_path": "",
        "match_values": REQUIRED,
        "match_condition": "INCLUDES",
    },
    ("transform", "sort"): {"value": REQUIRED, "property_path": None, "ascending": True},
    ("transform", "group-by"): {"value": REQUIRED, "key": REQUIRED, "as_map": False},
    ("transform", "map-fields"): {"source_data": REQUIRED, "mappings": REQUIRED},
    ("transform", "merge"): {"values": REQUIRED, "deep": True},
    ("transform", "append"): {"array": REQUIRED, "item": None},
    ("crypto", "hash"): {"data": REQUIRED, "algorithm": "sha256", "output_format": "hex"},
    ("crypto", "hmac"): {
        "data": REQUIRED,
        "secret": REQUIRED,
        "algorithm": "hmac-sha256",
        "output_format": "hex",
    },
}


@pytest.mark.parametrize("agent", CAPABILITIES)
def test_each_agent_has_its_capabilities_and_no_others(agent: str) -> None:
    found = registry().agent(agent)
    assert list(found.capabilities) == CAPABILITIES[agent].split()
    assert not found.side_effects
    assert not found.connections


@pytest.mark.parametrize(("agent", "capability"), INPUTS)
def test_each_capability_has_its_inputs_and_their_defaults(agent: str, capability: str) -> None:
    fields = registry().capability(agent, capability).inputs.model_fields
    found = {name: REQUIRED if field.is_required() else field.default for name, field in fields.items()}
    assert found == INPUTS[agent, capability]


@pytest.mark.parametrize("agent", CAPABILITIES)
def test_everything_says_what_it_is(agent: str) -> None:
    found = registry().agent(agent)
    assert found.description
    for capability in found.capabilities.values():
        assert capability.description, capability.name
        assert all(field.description for field in capability.inputs.model_fields.values()), capability.name


def test_what_gives_the_same_for_the_same_inputs_is_idempotent_and_nothing_else() -> None:
    agents = [registry().agent(id) for id in CAPABILITIES]
    others = {one.id for agent in agents for one in agent.capabilities.values() if not one.idempotent}
    assert others == {
        "random-double",
        "random-array",
        "get-current-unix-timestamp",
        "get-current-iso-datetime",
        "get-current-date",
    }
