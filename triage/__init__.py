"""The field's words and the record of what happened: the one package that all others share."""
