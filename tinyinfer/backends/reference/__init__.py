"""The device REFERENCE: the numpy oracle behind the Device protocol. Slow, and right; nothing here generates
code.
"""
