"""The sending side: SMTP sessions to SES, and what SES's replies mean."""
