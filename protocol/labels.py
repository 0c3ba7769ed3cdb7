"""What a label may be: short printable names and values, few of them, because lists search by them."""

from collections.abc import Mapping

from .limits import MAX_LABEL_LENGTH, MAX_LABELS, MAX_NAME_LENGTH


def label_fault(labels: Mapping[str, str]) -> str | None:
    """What is wrong with these labels; None if nothing is."""
    if len(labels) > MAX_LABELS:
        return f"more than {MAX_LABELS} labels"
    for name, value in labels.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            return f"label {str(name)[:40]!r} is not a text with a text as its value"
        if not name.isprintable() or not value.isprintable():
            return "a label has control characters"
        if len(name) > MAX_NAME_LENGTH or len(value) > MAX_LABEL_LENGTH:
            return f"label {name[:40]!r} is too long"
    return None
