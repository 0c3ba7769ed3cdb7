"""NATS in operator mode: keys, JWTs, what each account and each kind of user may do, and files that hold them.

The claims follow the JWT format v2 of the NATS server; signatures are made by `nkeys`, which nats-py needs anyway.
"""
