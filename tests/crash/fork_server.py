"""Imports embedlab once, then runs it in a forked child for every line of words (as JSON) that comes in.

Every picture that a child has put into its store is written down, so that one that is made twice is seen. What the
last child printed is in a file beside.
"""

import json
import os
import sys
import traceback

import torch
import transformers.models.clip  # noqa: F401

from embedlab import samples
from embedlab.cli import (
    launch,  # noqa: F401
    progress,  # noqa: F401
)
from embedlab.cli import main as app
from embedlab.sweep import (
    job,  # noqa: F401
    store,
)
from embedlab.sweep import run as batch  # noqa: F401

torch.set_num_threads(1)


def child(words: list[str], ledger: str) -> None:
    """Become embedlab."""
    own = store.Store.put

    def put(self: store.Store, key: str, sample: samples.Sample) -> samples.Sample:
        kept = own(self, key, sample)
        with open(ledger, "a") as file:
            file.write(key + "\n")
        return kept

    store.Store.put = put
    said = os.open(f"{ledger}.said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.argv = ["embedlab", *words]
    app.main()


if __name__ == "__main__":
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                child(order["words"], order["ledger"])
                code = 0
            except SystemExit as error:
                code = int(error.code or 0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(status, flush=True)
