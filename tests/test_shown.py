"""Names, counts and tables as lines for people say them."""

from pmexp.shown import (
    any_layer,
    class_of,
    counted,
    few,
    first_five,
    first_three,
    markdown_table,
    printable,
)

NAMES = [f"n{number}" for number in range(12)]


def test_longer_lists_say_how_many_more_there_are() -> None:
    assert first_three(NAMES[:3]) == "n0, n1, n2"
    assert first_three(NAMES[:5], between="; ") == "n0; n1; n2 and 2 more"
    assert first_five(NAMES[:5]) == "n0, n1, n2, n3, n4"
    assert first_five(NAMES[:6]) == "n0, n1, n2, n3, n4, ..."
    assert few(NAMES[:10]) == ", ".join(NAMES[:10])
    assert few(NAMES) == f"{', '.join(NAMES[:10])} and 2 more"


def test_long_names_are_cut_and_steering_letters_are_shown() -> None:
    assert few(["a" * 40, "b" * 41, "\x1b[1m", 3]) == f"{'a' * 40}, {'b' * 40}..., \\x1b[1m, 3"
    assert printable("a\tb\nc\u202e") == "a b c\\u202e"
    assert printable("a\nb\r", lines=True) == "a\nb "


def test_counts_and_layers() -> None:
    assert [counted(number, "pair") for number in range(3)] == ["0 pairs", "1 pair", "2 pairs"]
    assert any_layer("vit.layers.10.mlp.1") == "vit.layers.*.mlp.*" and any_layer("fc1.x2") == "fc1.x2"


def test_a_bar_ends_no_cell() -> None:
    assert markdown_table(["a", "b"], [["x|y", 1]]) == "| a | b |\n| --- | --- |\n| x\\|y | 1 |"


def test_a_class_is_named_with_its_article() -> None:
    assert [class_of(value) for value in (3, [], None, range(2), object())] == [
        *("an int", "a list", "a NoneType", "a range", "an object")
    ]
