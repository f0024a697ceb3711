"""
Rotation: a new key for a credential, without losing a mail and without ever wedging.

The plan is made in `plan`, its journaled steps are in `steps` and `targets`, `service` runs them;
`keys` deals with the two slots that IAM has, `login` with the test, `sessions` with SMTP sessions
that are under way. `secrets_manager` offers the same as a rotation function of AWS Secrets Manager.
"""
