"""The three-op intermediate representation: elementwise, reduce and movement nodes, their index algebra,
verifier, text form, rewrite passes and numpy oracle. Nothing here knows about ONNX, devices or schedules.
"""
