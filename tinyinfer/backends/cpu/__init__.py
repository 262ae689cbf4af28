"""The CPU: LLVM code generation, compilation with a cache on disk, and the run time that executes a plan.

Only llvmlite and ctypes, no C compiler. What a kernel computes is decided in `tinyinfer.kernels`, not here.
"""
