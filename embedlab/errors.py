"""What can be wrong, as one small tree. A message says what came, what would fit and what to try.

EmbedlabError
├── PromptError     a prompt, or a word that an operator looks for in it
├── OperatorError   an operator's settings, or vectors that do not fit the rows
├── ModelError      a model that is not there, lacks a part or cannot be read
├── SamplerError    scheduler, steps, start, guidance, sizes, seeds
├── PictureError    an input picture
└── ConfigError     anything else that was configured: folders, trackers, metrics
"""


class EmbedlabError(ValueError):
    """Base of all errors that a user's input can cause; the command line prints it as one line."""


class PromptError(EmbedlabError):
    """A prompt, or a word that an operator looks for in it."""


class OperatorError(EmbedlabError):
    """An operator's settings, or vectors that do not fit the rows."""


class ModelError(EmbedlabError):
    """A model that is not there, lacks a part or cannot be read."""


class SamplerError(EmbedlabError):
    """Scheduler, steps, start, guidance, sizes, seeds."""


class PictureError(EmbedlabError):
    """An input picture."""


class ConfigError(EmbedlabError):
    """Anything else that was configured: folders, trackers, metrics."""


def listed(names, most: int = 40) -> str:
    """Names for a message, cut when there are very many.

    >>> listed(["a", "b"]), listed("abc", most=2)
    ('a, b', 'a, b, … (3 in all)')
    """
    names = [str(n) for n in names]
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[:most])}, … ({len(names)} in all)"


def counted(number: int, what: str) -> str:
    """A number of things.

    >>> counted(1, "chunk"), counted(2, "chunk")
    ('1 chunk', '2 chunks')
    """
    return f"{number} {what}{'' if number == 1 else 's'}"
