"""Qualcomm Adreno GPUs: what is known of each, and compiling OpenCL C for them where none is at hand.

Nothing here runs a model. Importing it needs neither a driver nor the compiler; `ir3.find_compiler` looks for
that.
"""
