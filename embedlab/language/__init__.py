"""Text in a prompt language → a typed tree, and back.

`parse` reads, `write` writes, `escaped` makes plain text mean itself in a language, `foreign` says which other
language a text seems to be written in, `fragments` and `pieces` list the texts of a tree with their weights, and
`stages` what is encoded for each stretch of steps. No import of torch here.
"""

from __future__ import annotations

from embedlab.checks import in_choices
from embedlab.clean import one_line
from embedlab.errors import PromptError, brief
from embedlab.language import a1111, comfyui, compel, plain
from embedlab.language.a1111 import stages
from embedlab.language.foreign import foreign
from embedlab.language.tree import Node, Parsed, Parts, Piece, Text, fragments, pieces
from embedlab.language.writing import Writer

READERS = {"plain": plain.read, "a1111": a1111.read, "compel": compel.read, "comfyui": comfyui.read}
WRITERS: dict[str, Writer] = {
    "plain": plain.Plain(),
    "a1111": a1111.A1111(),
    "compel": compel.Compel(),
    "comfyui": comfyui.ComfyUI(),
}
LANGUAGES = tuple(READERS)

__all__ = [
    "LANGUAGES",
    "Node",
    "Parsed",
    "Parts",
    "Piece",
    "escaped",
    "foreign",
    "fragments",
    "parse",
    "pieces",
    "stages",
    "write",
]


def parse(text: str, language: str = "plain") -> Parsed:
    """The tree of a prompt in a language; `notes` say what the language did without a word.

    Raises PromptError for what is no text or no language, and LanguageError (which has `line` and `column`) for what is
    malformed where the language calls it an error, for a number that is not finite, and for brackets beyond all sense.

    >>> parse("a {puppy|skunk:0.3}").root[1].shares
    (0.7, 0.3)
    >>> fragments(parse("a (red:1.5) cat", "a1111"))
    [('a ', 1.0), ('red', 1.5), (' cat', 1.0)]
    """
    if not isinstance(text, str):
        raise PromptError(f"a prompt is a text; {brief(text)} came.")
    in_choices(language, "language", LANGUAGES, PromptError)
    notes: list[str] = []
    root = READERS[language](text, notes)
    return Parsed(text, language, root, tuple(dict.fromkeys(map(one_line, notes))))


def write(root: Parts, language: str = "plain") -> str:
    r"""A tree as text; `parse` gives the same tree again. Raises PromptError for a node that the language lacks.

    >>> write(parse("[blurry] cat", "a1111").root, "a1111")
    '(blurry:0.9090909090909091) cat'
    """
    in_choices(language, "language", LANGUAGES, PromptError)
    return WRITERS[language].whole(root)


def escaped(text: str, language: str = "plain") -> str:
    r"""Text that means nothing but itself in a language. Blanks at the ends, and runs of blanks in compel's, are lost.

    >>> escaped("a (red:1.5) cat", "a1111"), escaped("{a|b}")
    ('a \\(red:1.5\\) cat', '\\{a|b\\}')
    """
    return write((Text(text),) if text else (), language)
