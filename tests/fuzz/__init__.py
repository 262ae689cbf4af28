"""Fuzzing the import, the compilation and the run of ONNX models: `python -m tests.fuzz.run`."""
