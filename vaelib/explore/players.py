"""Clips to compare by ear: a table of words and players that needs no kernel, for a handful of rows."""

from __future__ import annotations

import html
from collections.abc import Mapping

from ..store import Store
from .clips import UNREADABLE
from .picture import data_uri, sound_bytes
from .views import own_sound

CELL = "padding: 2px 8px; text-align: left; vertical-align: middle; max-width: 28em; overflow-wrap: anywhere"


class Players:
    """Displays itself: one line per row of a store with its name, what is said of it, and the beginning of its sound.

    Args:
        notes: Row of the store → what is said of it; in this order.
        seconds: Length of the sounds; they are part of the page.
        nothing: What is shown when there are no rows.
    """

    def __init__(self, store: Store, notes: Mapping[int, str], seconds: float = 6.0, nothing: str = "none") -> None:
        self.store, self.notes, self.seconds, self.nothing = store, dict(notes), seconds, nothing

    def _line(self, row: int, note: str) -> str:
        try:
            sound = data_uri(sound_bytes(*own_sound(self.store, row), self.seconds), "audio/mpeg")
            player = f'<audio controls preload="none" src="{sound}" style="height: 32px"></audio>'
        except UNREADABLE as e:
            player = _text(f"no sound: {e}")
        start = self.store.table.loc[row].get("start_s", 0.0)
        name = f"{self.store.table.loc[row, 'path']}" + (f" (from {start:.1f} s)" if start else "")
        return "<tr>" + "".join(f'<td style="{CELL}">{c}</td>' for c in (_text(note), _text(name), player)) + "</tr>"

    def _repr_html_(self) -> str:
        if not self.notes:
            return f"<p>{_text(self.nothing)}</p>"
        return f"<table>{''.join(self._line(row, note) for row, note in self.notes.items())}</table>"

    def __repr__(self) -> str:
        return f"players of {len(self.notes)} clips" if self.notes else self.nothing


def _text(words: object) -> str:
    """Words as text, never markup; what is no character (a byte of a file's name that is not UTF-8) as ?."""
    return html.escape(str(words).encode("utf-8", "replace").decode())
