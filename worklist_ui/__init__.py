"""The reading list in the browser: what was received, what was found, who reads it."""
