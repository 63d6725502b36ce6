"""The table: every trial, by group. A trial that works has `works`, one that is refused has the word it must say."""

from rows_commands import COMMANDS
from rows_files import FILES
from rows_python import PYTHON
from rows_sampling import SAMPLING
from rows_secrets import SECRETS
from rows_settings import SETTINGS
from rows_terminal import TERMINAL

TABLE = [*SETTINGS, *SAMPLING, *FILES, *COMMANDS, *PYTHON, *SECRETS, *TERMINAL]
