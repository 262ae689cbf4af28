"""Compiled models as sources and files for other tools. Plans and kernels are made elsewhere; nothing here
decides what is computed.
"""
