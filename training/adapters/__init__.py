"""Adapters: one a data set, each from its published layout to the same labelled scan."""
