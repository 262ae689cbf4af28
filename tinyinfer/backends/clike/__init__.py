"""Kernels as text of C-like languages: one printer for all, and a table (`dialect`) for what each language
writes differently. What comes around the kernels (launches, buffers, weights) belongs to a device or to
`emit`.
"""
