"""`embedlab gallery`: the page of a sweep."""

from __future__ import annotations

import webbrowser

from embedlab import readers
from embedlab.cli.parser import Parser
from embedlab.errors import ConfigError


def main(argv: list[str]) -> None:
    """Write the gallery, or keep it up with a running sweep."""
    parser = Parser(
        prog="embedlab gallery",
        description="A sweep as a page: opens from disk, needs no network, follows a sweep that still runs.",
    )
    parser.add_argument(
        "sweeps",
        metavar="SWEEP",
        nargs="+",
        type=readers.word,
        help="the folder of a multirun, such as multirun/DATE/TIME; of several sweeps one page that compares them",
    )
    parser.add_argument("--to", metavar="FOLDER", type=readers.word, help="write there, with copies of all pictures")
    parser.add_argument("--watch", action="store_true", help="follow a running sweep until it is finished, or Ctrl-C")
    parser.add_argument("--every", metavar="SECONDS", type=float, default=2.0, help="how often --watch looks (2)")
    parser.add_argument("--open", action="store_true", help="open it in the browser")
    chosen = parser.parse_args(argv)
    if not 0 < chosen.every < 86400:
        raise ConfigError(f"--every is {chosen.every:g}; it has to be a number of seconds above 0, such as 2.")

    from embedlab.view import gallery

    shown = False

    def say(written: gallery.Written) -> None:
        nonlocal shown
        print(written, flush=True)
        if chosen.open and not shown:
            webbrowser.open(written.index.as_uri())
        shown = True

    if chosen.watch:
        gallery.watch(chosen.sweeps, chosen.to, chosen.every, say)
    else:
        say(gallery.write(gallery.together(chosen.sweeps), chosen.to))
