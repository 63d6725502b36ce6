"""The words of the commands beside a run: argparse, with our complaints."""

from __future__ import annotations

import argparse
from typing import NoReturn

from embedlab.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """The words of a command; its complaint is one line like all others."""

    def error(self, message: str) -> NoReturn:
        """Raises ConfigError."""
        raise ConfigError(f"{self.prog.removeprefix('embedlab ')}: {message}; {self.prog} --help says what it takes.")
