"""What runs: the plan (launches and buffers), the memory planner, sessions, profiling. No compiler, no ONNX
parsing."""
