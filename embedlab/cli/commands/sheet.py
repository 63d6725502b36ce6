"""`embedlab sheet`: the contact sheets of a finished sweep, by axes chosen afterwards."""

from __future__ import annotations

from embedlab import readers
from embedlab.cli.commands import report_unread
from embedlab.cli.parser import Parser
from embedlab.cli.progress import aside


def main(argv: list[str]) -> None:
    """Write the sheets, and print where they are."""
    parser = Parser("embedlab sheet", description="Write the contact sheets of a sweep once more.")
    parser.add_argument("sweep", metavar="SWEEP", type=readers.word, help="the folder of a sweep")
    parser.add_argument("--rows", metavar="KEY", help="the axis that goes down; the last part of its name will do")
    parser.add_argument("--columns", metavar="KEY", help="the axis that goes across")
    parser.add_argument("--to", type=readers.word, metavar="FILE", help="the first page (SWEEP/sheet.png)")
    parser.add_argument("--maps", metavar="WORD", help="show where it is looked at, with attention=maps")
    words = parser.parse_args(argv)

    from embedlab.view.layout import results_of

    report_unread(words.sweep)
    results = results_of(words.sweep)
    aside(f"drawing the sheet of {words.sweep}")

    from embedlab.view.contact_sheet import write_sheets

    for path in write_sheets(words.sweep, results, words.rows, words.columns, words.to, words.maps):
        print(path)
