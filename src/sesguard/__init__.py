"""sesguard keeps the Amazon SES SMTP credential of a mail host out of every file."""

__version__ = "0.1.0"
