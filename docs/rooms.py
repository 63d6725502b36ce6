"""Draw docs/rooms.svg: the rooms, their files, and which room imports from which, read from the code.

python docs/rooms.py
"""

import runpy
import sys
from collections import Counter
from html import escape
from pathlib import Path

ROOT = Path(__file__).parent.parent
LEFT, WIDE, RIGHT = 24, 560, 300  # of the boxes, and the room for arcs beside them
CHARACTERS = 74  # a line of a box


def lines_of(names: list[str]) -> list[str]:
    """Names, as many in a line as fit."""
    lines = [""]
    for name in names:
        if len(lines[-1]) + len(name) + 3 > CHARACTERS:
            lines.append("")
        lines[-1] += f"{' · ' if lines[-1] else ''}{name}"
    return lines


def drawing() -> str:
    """The whole picture as SVG."""
    sys.path.insert(0, str(ROOT / "tests"))
    code = runpy.run_path(str(ROOT / "tests" / "test_imports.py"))
    arrow, graph = code["ARROW"], code["graph"]()
    level_of = code["LEVEL"]
    files: dict[str, list[str]] = {}  # of each box: the arrow and the ground are one, other rooms have their own
    for name in sorted(graph.keys() - {"__main__"}):
        files.setdefault(box_of(name, arrow, level_of), []).append(name)
    order = sorted(files, key=lambda box: (min(level_of[name.split(".")[0]] for name in files[box]), box))
    imports = Counter(
        (box_of(name, arrow, level_of), box_of(other, arrow, level_of))
        for name in graph
        if name != "__main__"
        for other in graph[name]
    )
    parts, tops, y = [], {}, LEFT
    for box in order:
        names = [name.removeprefix(f"{box}.") for name in files[box] if name != box]
        if box == "the arrow":
            names = [f"{room}/" if f"{room}." in " ".join(graph) else room for room in arrow]
        lines = lines_of(names or [box])
        high = 34 + 17 * len(lines)
        parts.append(f'<rect x="{LEFT}" y="{y}" width="{WIDE}" height="{high}" rx="6" class="box"/>')
        parts.append(f'<text x="{LEFT + 12}" y="{y + 20}" class="room">{escape(box)}</text>')
        for n, line in enumerate(lines):
            parts.append(f'<text x="{LEFT + 12}" y="{y + 40 + 17 * n}">{escape(line)}</text>')
        tops[box] = y, high
        y += high + 14
    for (box, other), count in sorted(imports.items()):
        if box != other:
            span = order.index(box) - order.index(other)
            place = sum(1 for pair in imports if pair[0] == box and pair < (box, other))
            start = tops[box][0] + 10 + 8 * place
            end = tops[other][0] + tops[other][1] - 8 - 5 * span
            x, far = LEFT + WIDE, LEFT + WIDE + 34 * span + 10
            parts.append(
                f'<path d="M{x} {start} C{far} {start} {far} {end} {x + 6} {end}" stroke-width="{1 + count / 20:.1f}">'
                f"<title>{escape(box)} imports from {escape(other)}: {count}</title></path>"
            )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDE + RIGHT} {y + 10}" role="img" '
        'aria-label="The rooms of embedlab, and which imports from which">\n'
        "<style>text{font:12px ui-monospace,monospace;fill:#222}.room{font-weight:700}.box{fill:#f4f6f8;stroke:#8a94a0}"
        "path{fill:none;stroke:#1f5fb4;opacity:.55;marker-end:url(#head)}</style>\n"
        '<defs><marker id="head" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="9" markerHeight="9" '
        'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8z" style="fill:#1f5fb4;stroke:none;opacity:1;'
        'marker-end:none"/></marker></defs>\n<rect width="100%" height="100%" fill="#fff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def box_of(name: str, arrow: tuple[str, ...], level_of: dict[str, int]) -> str:
    """The box that a file stands in."""
    room = name.split(".", maxsplit=1)[0]
    if room in arrow:
        return "the arrow"
    return "ground" if level_of[room] == 0 else room


if __name__ == "__main__":
    (ROOT / "docs" / "rooms.svg").write_text(drawing())
