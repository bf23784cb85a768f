"""No circles: what imports what, function-level imports included, is a tree of layers down to single files."""

from collections.abc import Iterator, Mapping

import grimp

ROOTS = ("pmexp", "pmexp_analysis", "hydra_plugins.pmexp_launchers")


BACKWARDS = {  # native calls are compared with Python's when they are first asked for, which ask for them
    ("pmexp.packed_dropout.native.comparison", "pmexp.packed_dropout.functional"),
    ("pmexp.packed_dropout.ops", "pmexp.packed_dropout.native"),
}


def circles(imports: Mapping[str, set[str]]) -> Iterator[list[str]]:
    """The modules of each circle, by Tarjan's search for strongly connected components."""
    place: dict[str, int] = {}
    lowest: dict[str, int] = {}
    open_: list[str] = []

    def visit(module: str) -> Iterator[list[str]]:
        place[module] = lowest[module] = len(place)
        open_.append(module)
        for other in imports[module]:
            if other not in place:
                yield from visit(other)
            if other in open_:
                lowest[module] = min(lowest[module], lowest[other])
        if lowest[module] == place[module]:
            circle = open_[open_.index(module) :]
            del open_[open_.index(module) :]
            if len(circle) > 1:
                yield sorted(circle)

    for module in imports:
        if module not in place:
            yield from visit(module)


def test_a_circle_is_found() -> None:
    imports = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": set(), "e": {"d", "a"}}
    assert list(circles(imports)) == [["a", "b", "c"]]


def test_the_tree_has_no_circle() -> None:
    """Imports for types alone are none: they are not executed."""
    graph = grimp.build_graph(*ROOTS, exclude_type_checking_imports=True, cache_dir=None)
    assert len(graph.modules) > 300
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    for importer, imported in BACKWARDS:
        imports[importer].remove(imported)
    assert list(circles(imports)) == []
