"""Bytes into records: what the kernel and its drivers say, one file per interface, named after it."""
