"""Devices: one folder each behind the protocol in base.py, found by name through `registry`."""
