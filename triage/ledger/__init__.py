"""The ledger: the one SQLite file that says what was received, where each study stands and what was found.

    connection.py   one connection a thread, transactions, WAL with synchronous=FULL
    migrations.py   the tables, each change a numbered step
    intake.py       what the listener writes: instances, completion, conflicts, quarantine
    kept_files.py   the files that rows name, and what is in quarantine
    work.py         what a worker writes: leases, findings, refusals, failures
    studies.py      reading studies, instances, analyses and events
    reading.py      what the worklist writes: claims, reads, agreement
    users.py        who may sign in
    tokens.py       what programs show: whose, for what, until when
    external_identities.py  accounts of people whom an identity provider vouches for
    image_search.py searching for studies, series and instances; retrievals.py notes what was given of them

SQL stands in this package and nowhere else.
"""

from triage.ledger.connection import Ledger, SharedLedger

__all__ = ["Ledger", "SharedLedger"]
