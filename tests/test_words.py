"""One word has one meaning, and what is written about the code is sentences: the parts that a test can read."""

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = sorted(file for room in ("src", "launchers", "analysis") for file in (ROOT / room).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
FRAGMENT = re.compile(r"of\b", re.IGNORECASE)  # what begins so is about something and says nothing of it
# The beginning of a text, of a paragraph, of an entry of a list or a table, or what follows a sentence.
SENTENCE_OF = re.compile(r"(?:\A|\n\n|[-|] |[.?!:][)\"*`]*\s+)(Of\b.{,60})", re.DOTALL)
_NAMED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def comments(file: Path) -> Iterator[tuple[int, str]]:
    """Yields each comment with its first line's number; a line right below another goes on with it."""
    first, before, lines = 0, (0, 0), list[str]()
    for token in tokenize.generate_tokens(io.StringIO(file.read_text()).readline):
        if token.type == tokenize.COMMENT:
            if (token.start[0] - 1, token.start[1]) != before:
                yield first, " ".join(lines)
                first, lines = token.start[0], []
            lines.append(token.string.lstrip("# "))
            before = token.start
    yield first, " ".join(lines)


@cache
def told(file: Path) -> list[tuple[int, str]]:
    """Each docstring and comment with its first line's number."""
    named = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, _NAMED)]
    docstrings = [(getattr(node, "lineno", 1), ast.get_docstring(node) or "") for node in named]
    return [*docstrings, *comments(file)]


def test_no_docstring_and_no_comment_is_a_fragment() -> None:
    fragments = [
        f"{file.relative_to(ROOT)}:{line}: {text}"
        for file in FILES + TESTS
        for line, text in told(file)
        if FRAGMENT.match(text)
    ]
    assert fragments == []


def test_no_sentence_begins_with_of() -> None:
    written = [(file, line, text) for file in FILES + TESTS for line, text in told(file)]
    written += [(page, 1, page.read_text()) for page in PAGES]
    begun = [
        f"{file.relative_to(ROOT)}: line {line + text[: match.start(1)].count(chr(10))}: {match[1]}"
        for file, line, text in written
        for match in SENTENCE_OF.finditer(text)
    ]
    assert begun == []


def test_a_class_name_is_given_once() -> None:
    classes = Counter(
        node.name
        for file in FILES
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in classes.items() if count > 1 and not name.startswith("_")] == []


def test_a_variable_says_what_it_holds() -> None:
    with_word = [
        file for file in FILES + TESTS if "found" in file.read_text()
    ]  # to look through all takes seconds
    bound = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in with_word
        for node in ast.walk(ast.parse(file.read_text()))
        if (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == "found")
        or (isinstance(node, ast.arg) and node.arg == "found")
    ]
    assert bound == []


def test_no_file_is_a_crumb() -> None:
    faces = {"__init__.py", "__main__.py"}
    small = [file for file in FILES if file.name not in faces and len(file.read_text().splitlines()) < 15]
    assert [str(file.relative_to(ROOT)) for file in small] == []
