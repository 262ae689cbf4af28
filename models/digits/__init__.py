"""A small handwritten-digit classifier: how its pictures are drawn, how it is trained, and the trained model.

`train.py` makes everything in this folder that is not Python.
"""
