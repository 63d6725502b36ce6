"""A gallery as an anywidget: the same page in a notebook, with what is looked at as traits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from embedlab.errors import ConfigError
from embedlab.view.gallery.content import together
from embedlab.view.gallery.folder import PAGE
from embedlab.view.gallery.single import Carried, carried, shell


def widget(*folders: Path | str, height: int = 640) -> Any:
    """The gallery of a sweep, or of several, as an anywidget, `height` pixels high.

    Its traits follow what is looked at: `picked` is the open picture (`job folder/seed`, or empty), `marked` those that
    are compared, `view` the whole view as the address of the page would hold it; setting `view` moves the page.
    `refresh()` reads the sweep again. A folder that is no sweep, or a missing anywidget, is a ConfigError.
    """
    return kind()(folders, height=height)


@cache
def kind() -> type:
    """The widget's class; anywidget comes with the extra `notebook`, and late."""
    try:
        import anywidget  # noqa: PLC0415 - an extra
        import traitlets  # noqa: PLC0415
    except ImportError:
        raise ConfigError(
            "a widget needs the package anywidget, which is not installed: pip install 'embedlab[notebook]'."
        ) from None

    class Gallery(anywidget.AnyWidget):
        """A sweep's gallery in a notebook."""

        _esm = module()
        content = traitlets.Unicode("null").tag(sync=True)  # JSON: all but the pictures
        pictures = traitlets.Bytes(b"").tag(sync=True)  # the files of all pictures, one after the other
        height = traitlets.Int(640, min=120).tag(sync=True)
        view = traitlets.Unicode("").tag(sync=True)
        picked = traitlets.Unicode("").tag(sync=True)
        marked = traitlets.List(traitlets.Unicode()).tag(sync=True)

        def __init__(self, folders: Sequence[Path | str], **traits: Any):
            self.folders = [Path(folder) for folder in folders]
            super().__init__(**traits, **traits_of(carried(together(self.folders))))

        def refresh(self) -> None:
            """Read the sweep again; the view stays."""
            with self.hold_sync():
                for name, value in traits_of(carried(together(self.folders))).items():
                    setattr(self, name, value)

        def __repr__(self) -> str:
            return f"Gallery({', '.join(repr(str(folder)) for folder in self.folders)})"

    return Gallery


def traits_of(held: Carried) -> dict[str, Any]:
    """What is sent to the page: its data, and its pictures with their types and lengths."""
    parts = [[kind, len(picture)] for kind, picture in held.pictures]
    data = {**held.data, "carried": {**held.data["carried"], "parts": parts}}
    return {"content": json.dumps(data), "pictures": b"".join(picture for _, picture in held.pictures)}


@cache
def module() -> str:
    """The widget's ES module: the page as a text, and `render`, which puts it into an iframe.

    An iframe keeps the page's keys, styles and sizes its own, whatever the notebook around it does with them.
    """
    page = json.dumps(shell("Gallery")).replace("</", "<\\/")
    return f"const PAGE = {page};\n" + (PAGE / "widget.js").read_text(encoding="utf-8")
