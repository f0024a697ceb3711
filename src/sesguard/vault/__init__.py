"""
The vault: credentials as sealed records, in one file that changes in one durable step.

    vault.py      the vault: read, update, restore
    source.py     what the daemon serves from: the newest good contents, kept in memory
    sealer.py     seals other data, such as a checkpoint with a secret in it
    opening.py    settings to vault
    generation.py one state of the vault: authenticated manifest and opened credentials
    rewrap.py     moves the vault to another key
    records.py    one credential version to one sealed record and back
    format.py     the bytes of the files, signed and checked
    next_mark.py  what vouches for a vault while its manifest key is being changed
    store.py      the files themselves: lock, commit point, high-water mark
    cipher.py     every cryptographic primitive, and the only import of `cryptography`
    providers/    what wraps the data keys
    openssl_legacy.py  reads files that other scripts encrypted

The formats are described in docs/formats/vault.md and docs/formats/sealed-record.md.
"""
