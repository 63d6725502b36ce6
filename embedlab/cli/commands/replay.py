"""`embedlab replay`: make a picture again from the settings inside it."""

from __future__ import annotations

import sys

from embedlab import readers
from embedlab.cli.parser import Parser
from embedlab.cli.progress import aside
from embedlab.errors import PictureError


def main(argv: list[str]) -> None:
    """Exit code 0 for the same picture (but for rounding), 1 for another, 2 for none to be made."""
    parser = Parser(
        "embedlab replay", description="Make a picture again from the settings inside it, and compare the two."
    )
    parser.add_argument("picture", metavar="PICTURE", type=readers.word, help="a PNG that embedlab wrote")
    parser.add_argument(
        "--to", type=readers.word, metavar="FILE", help="where to save the new picture; else nothing is written"
    )
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="a package whose operators may be run; repeatable",
    )
    words = parser.parse_args(argv)
    if not words.picture.is_file():
        raise PictureError(f"there is no picture '{words.picture}'.")
    aside(f"making {words.picture} again")
    from embedlab.view.metadata import read_metadata

    read_metadata(words.picture)  # another file is refused before the libraries of a model are imported

    from embedlab.models.silence import silence_libraries
    from embedlab.view.replay import replay

    with silence_libraries():
        done = replay(words.picture, words.trust)
    if words.to is not None:
        from embedlab.images import save

        save(done.picture, words.to)
    print(done)
    sys.exit(0 if done.identical or done.only_rounded else 1)
