"""The embedded model server: answers as `tensorflow_model_server` does, for one machine without a container."""
