"""
Finding SES SMTP credentials in configuration text, and taking them out of it.

Pure: text in, findings out. `sesguard.core.plaintext.detect` is the way in; each family of formats
has a file of its own behind the interface of `sesguard.core.plaintext.interface`.
"""
