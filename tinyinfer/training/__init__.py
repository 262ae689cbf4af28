"""Training: gradients of graphs in the three-op IR, as graphs in the same IR.

Everything here makes IR nodes, which are compiled like the rest; no kernel knows of training.
"""
