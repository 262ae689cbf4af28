"""The OPENCL device: plans as OpenCL C programs, run through pyopencl on whatever OpenCL device there is.
How kernels are scheduled and printed is common to all devices of work-items (`kernels`, `backends/clike`).
"""
