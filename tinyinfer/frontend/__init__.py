"""What turns a description of a model into a Graph of the three-op IR.

`onnx/` reads ONNX files. Rewrites of the Graph live in `ir/passes`, not here.
"""
