"""Reads YAML in which each key of a mapping is given once: YAML itself takes the last and says nothing."""

from collections.abc import Iterator
from typing import Any

import yaml

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as quick


def read(text: str, loader: Any = LOADER) -> Any:
    """Returns the values in `text`, None where it is empty.

    Raises yaml.YAMLError, whose message is one line for a key given twice.
    """
    reader = loader(text)
    try:
        root = reader.get_single_node()
        if root is None:
            return None
        for mapping in _mappings(root):
            _refuse_twice(mapping)
        return reader.construct_document(root)
    finally:
        reader.dispose()


def _mappings(root: yaml.Node) -> Iterator[yaml.MappingNode]:
    """Yields each mapping once: an alias may name one again, even inside itself."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield node
            waiting += [part for pair in node.value for part in pair]
        else:
            waiting += node.value


def _refuse_twice(mapping: yaml.MappingNode) -> None:
    first: dict[str, int] = {}
    for key, _ in mapping.value:
        if not isinstance(key, yaml.ScalarNode) or key.value == "<<":  # all that is merged in counts
            continue
        line = key.start_mark.line + 1
        if key.value in first:
            where = f"in lines {first[key.value]} and {line}"
            raise yaml.YAMLError(f"{key.value!r} is given twice, {where}; keep one of them")
        first[key.value] = line
