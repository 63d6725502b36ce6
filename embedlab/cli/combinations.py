"""Templates of `dynamicprompts` → all prompts that they stand for, in its order: `{a|b}`, `{2$$a|b|c}`, `__file__`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from dynamicprompts.commands import (
    Command,
    LiteralCommand,
    SamplingMethod,
    SequenceCommand,
    VariantCommand,
    WildcardCommand,
    WrapCommand,
)
from dynamicprompts.commands.variable_commands import VariableAccessCommand, VariableAssignmentCommand
from dynamicprompts.parser.parse import parse
from dynamicprompts.sampling_context import SamplingContext
from dynamicprompts.wildcards import WildcardManager
from pyparsing import ParseBaseException

from embedlab.clean import one_line
from embedlab.errors import ConfigError, EmbedlabError, first_line, listed

MOST = 10_000  # of one template, where nobody asks for fewer or more


@contextmanager
def quiet() -> Iterator[None]:
    """What the library logs of a wildcard is an error here, and said once."""
    logger = logging.getLogger("dynamicprompts")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


class Combinations:
    """All prompts of a template; `folder` has the files of `__file__`, `most` are taken of each template."""

    def __init__(self, folder: Path | None = None, most: int | None = None) -> None:
        if folder is not None and not folder.is_dir():
            raise ConfigError(f"prompts.wildcards is '{folder}', which is no folder; it has the files of __file__.")
        self.folder, self.most = folder, most
        self.wildcards = WildcardManager(folder)
        self.context = SamplingContext(SamplingMethod.COMBINATORIAL, self.wildcards)
        self.checked: set[str] = set()

    def __call__(self, template: str, place: str) -> list[str]:
        """Every prompt of a template once; ConfigError with its place for what cannot be read, or has too many.

        >>> Combinations()("{a|one} {cat|dog}", "the prompt")
        ['a cat', 'a dog', 'one cat', 'one dog']
        """
        most = MOST if self.most is None else self.most
        try:
            with quiet():
                self._check(template, place, ())
                found = self._all(template, most + 1)
        except ParseBaseException as error:
            raise ConfigError(
                f"{place} cannot be read by dynamicprompts at '{one_line(template[error.loc :][:20])}' (line "
                f"{error.lineno}, column {error.column}); what is no template needs no prompts.combinatorial."
            ) from None
        except RecursionError:
            raise ConfigError(f"{place} has too many braces within or behind each other for dynamicprompts.") from None
        except EmbedlabError:
            raise
        except Exception as error:  # what the library raises of templates that it does not expect is of many kinds
            raise ConfigError(f"{place} is refused by dynamicprompts: {one_line(_reason(error))}.") from None
        if len(found) > most and self.most is None:
            raise ConfigError(f"{place} stands for more than {most} prompts; prompts.most=N takes the first N.")
        found = list(dict.fromkeys(found[:most]))
        if not found or found == [""]:
            raise ConfigError(f"{place} stands for no prompt: {template!r:.80}.")
        return found

    def _all(self, template: str | Command, most: int) -> list[str]:
        return [str(one) for one in islice(self.context.sample_prompts(template), most)]

    def _check(self, template: str, place: str, inside: tuple[str, ...]) -> None:
        """Refuse what asks for chance, and wildcards that are not there or lead to themselves."""
        for command in _within(parse(template)):
            if getattr(command, "sampling_method", None) not in (None, SamplingMethod.COMBINATORIAL):
                raise ConfigError(f"{place} asks for chance or turns (~ or @); here all combinations are taken.")
            if not isinstance(command, WildcardCommand):
                continue
            name = command.wildcard
            for one in [name] if isinstance(name, str) else self._all(name, MOST):
                self._check_wildcard(one, place, inside)

    def _check_wildcard(self, name: str, place: str, inside: tuple[str, ...]) -> None:
        said = f"the wildcard __{one_line(name)}__"
        if name in inside:
            raise ConfigError(f"{place}: {said} leads to itself.")
        if name in self.checked:
            return
        if self.folder is None:
            raise ConfigError(f"{place} asks for {said}; prompts.wildcards=FOLDER says where its file is.")
        values = self.wildcards.get_values(name).string_values
        if not values:
            there = listed(sorted(self.wildcards.get_collection_names())) or "none"
            raise ConfigError(f"{place} asks for {said}; '{self.folder}' has {there}.")
        for value in values:
            self._check(value, f"{place}, a line of __{name}__", (*inside, name))
        self.checked.add(name)


def _reason(error: Exception) -> str:
    """What an error of the library says; of a KeyError without the quotes."""
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else first_line(error)


def _within(command: Command) -> Iterator[Command]:
    """A command and all within it."""
    yield command
    match command:
        case SequenceCommand():
            inner: list[Command] = list(command.tokens)
        case VariantCommand():
            inner = list(command.values)
        case WrapCommand():
            inner = [command.wrapper, command.inner]
        case VariableAssignmentCommand():
            inner = [command.value]
        case VariableAccessCommand():
            inner = [one for one in (command.default,) if isinstance(one, Command)]
        case LiteralCommand() | WildcardCommand() | _:
            inner = []
    for one in inner:
        yield from _within(one)
