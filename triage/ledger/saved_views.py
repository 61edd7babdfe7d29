"""What a reader keeps of the list: views under a name, as an address spells them, and the columns of every view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from triage.ledger.connection import Ledger

MOST_VIEWS = 20  # of one reader


@dataclass(frozen=True)
class SavedView:
    """One kept view; `query` is the address's query string."""

    name: str
    query: str


class SavedViews:
    """The readers' views in the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def of(self, username: str) -> list[SavedView]:
        """Give a reader's views by name."""
        rows = self._ledger.db.query("SELECT name, query FROM saved_views WHERE username = ? ORDER BY name", [username])
        return [SavedView(**row) for row in rows]

    def keep(self, username: str, view: SavedView) -> bool:
        """Keep a view, in place of one of the same name; False if there are `MOST_VIEWS` already."""
        with self._ledger.transaction() as db:
            others = db.execute(
                "SELECT COUNT(*) FROM saved_views WHERE username = ? AND name != ?", [username, view.name]
            ).fetchone()[0]
            if others >= MOST_VIEWS:
                return False
            db.execute(
                "INSERT INTO saved_views (username, name, query) VALUES (?, ?, ?)"
                " ON CONFLICT (username, name) DO UPDATE SET query = excluded.query",
                [username, view.name, view.query],
            )
            return True

    def forget(self, username: str, name: str) -> bool:
        """Forget a view; False if there is none of this name."""
        with self._ledger.transaction() as db:
            gone = db.execute("DELETE FROM saved_views WHERE username = ? AND name = ?", [username, name]).rowcount
            return bool(gone)

    def columns_of(self, username: str) -> list[str]:
        """Name the columns that a reader has chosen for every view, in order; empty: none were chosen."""
        row = self._ledger.db.execute("SELECT columns FROM list_columns WHERE username = ?", [username]).fetchone()
        return row[0].split(",") if row and row[0] else []

    def choose_columns(self, username: str, names: Sequence[str]) -> None:
        """Keep which columns a reader wants in every view; empty: those of a new account."""
        with self._ledger.transaction() as db:
            db.execute(
                "INSERT INTO list_columns (username, columns) VALUES (?, ?)"
                " ON CONFLICT (username) DO UPDATE SET columns = excluded.columns",
                [username, ",".join(names)],
            )
