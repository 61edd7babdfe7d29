"""The worker that reads queued studies through the model, and the embedded model server."""
