"""Which results this process has already noted as shown, so that no row is written twice."""

from __future__ import annotations

import threading


class Shown:
    """Remembers the last result of each study that stood on a list."""

    def __init__(self) -> None:
        self._found_at: dict[int, float] = {}
        self._lock = threading.Lock()

    def add(self, study_id: int, found_at: float) -> bool:
        """Remember one; True if it is new here."""
        with self._lock:
            new = self._found_at.get(study_id) != found_at
            self._found_at[study_id] = found_at
            return new
