"""Qualcomm Adreno GPUs: what is known of each, compiling OpenCL C for them where none is at hand, and, in
`kgsl`, the direct route to one.

Importing it needs neither a driver nor the compiler; `ir3.find_compiler` looks for the latter.
"""
