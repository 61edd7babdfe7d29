"""What a user may be called."""

from __future__ import annotations

import re

# What may be typed on any keyboard; it stands in the log and in histories, so it is no free text.
USERNAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
USERNAME_RULE = "A name has small letters, digits, dot, dash, underscore or @, at most 64 of them."
