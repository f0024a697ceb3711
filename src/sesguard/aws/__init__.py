"""
Typed wrappers over the AWS APIs; the only package that imports boto3.

Each wrapper has the calls that sesguard needs and no more, gives frozen records, and raises the
classes of `sesguard.errors` (see `sesguard.aws.errors`). A secret that AWS hands out is wrapped in
a `Secret` before it leaves the wrapper.
"""
