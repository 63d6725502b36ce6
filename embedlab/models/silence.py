"""Other libraries' notices and progress bars, kept back for a while."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

LIBRARIES = ("transformers", "diffusers", "huggingface_hub")


@contextmanager
def silence_libraries() -> Iterator[None]:
    """Let the libraries that read models say only what is wrong; afterwards they say what they said before.

    Levels of logging, progress bars and filters of warnings are the process's: one thread at a time.

    >>> with silence_libraries():
    ...     logging.getLogger("transformers").isEnabledFor(logging.WARNING)
    False
    """
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    with warnings.catch_warnings(), ExitStack() as back:
        warnings.filterwarnings("ignore", module=rf"({'|'.join(LIBRARIES)}|embedlab\.models)\b")
        for name in LIBRARIES:
            logger = logging.getLogger(name)
            back.callback(logger.setLevel, logger.level)
            logger.setLevel(max(logger.level, logging.ERROR))
        if diffusers_logging.is_progress_bar_enabled():
            diffusers_logging.disable_progress_bar()
            back.callback(diffusers_logging.enable_progress_bar)
        if not are_progress_bars_disabled():
            disable_progress_bars()
            back.callback(enable_progress_bars)
        back.callback(transformers_logging.set_tqdm_hook, transformers_logging.set_tqdm_hook(_no_bar))
        yield


def _no_bar(factory: Any, args: Any, kwargs: Any) -> Any:
    return transformers_logging.EmptyTqdm(*args, **kwargs)
