"""DICOMweb (PS3.18) from our own store: searching (QIDO-RS), retrieving (WADO-RS) and storing (STOW-RS).

search.py       the addresses of QIDO-RS;   query.py reads what is asked, attributes.py writes what was found
retrieve.py     the addresses of WADO-RS
store.py        the addresses of STOW-RS;   incoming_parts.py reads its bodies
negotiation.py  Accept and its parameters (PS3.18 8.7)
stored.py       the files as they lie in the store, and their headers
encoding.py     the same in another transfer syntax; frames
json_model.py   a data set as DICOM JSON (PS3.18 annex F), its bulk data by address
multipart.py    multipart/related bodies
rendering.py    pictures, with the warning burned in
disclosures.py  who was given which study's images
cross_origin.py which other sites' pages may ask
"""
