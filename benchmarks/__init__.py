"""Measuring tinyinfer against other engines: `compare` (latency), `start` (time to a first result), `memory`.

Each engine runs in a process of its own (`worker`), on the same model files and the same feeds (`catalogue`).
"""
