"""What stands on a page, read from its HTML."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class ListRow:
    """One row of the list as the reader sees it."""

    study_id: int
    standing: str
    text: str = ""
    steps: list[str] = field(default_factory=list)


class ListReader(HTMLParser):
    """Reads the rows and counts of the list."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[ListRow] = []
        self.counts: dict[str, int] = {}
        self._row: ListRow | None = None
        self._standing = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "tr" and values.get("data-study"):
            self._row = ListRow(int(values["data-study"]), values["data-standing"])
            self.rows.append(self._row)
        if tag == "a" and "data-standing" in values:
            self._standing = values["data-standing"]
        if values.get("id") == "received":
            self._standing = "received"
        if tag == "button" and self._row and "data-step" in values:
            self._row.steps.append(values["data-step"])

    def handle_endtag(self, tag: str) -> None:
        if tag == "tr":
            self._row = None

    def handle_data(self, data: str) -> None:
        if self._row:
            self._row.text = " ".join(f"{self._row.text} {data}".split())
        if self._standing and data.strip().isdigit():
            self.counts[self._standing] = int(data)
            self._standing = ""


def read_list(html: str) -> ListReader:
    reader = ListReader()
    reader.feed(html)
    return reader
