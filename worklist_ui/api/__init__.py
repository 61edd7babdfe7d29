"""The JSON API for other people's programs, below /api/v1.

models.py      what is asked and answered, as pydantic models: the API's contract
operations.py  one operation a route: its models, its checks, and the table that the document is made from
studies.py     the operations themselves
changes.py     the stream of changes, as server-sent events
openapi.py     the OpenAPI 3.1 document, made from the two above
reference.py   the document, and a page to read it
"""
