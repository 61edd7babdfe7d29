"""Learning to find blood: labelled scans in, a SavedModel that any TF Serving loads out."""
