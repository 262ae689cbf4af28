"""Code for WebAssembly: relocatable objects joined into one module, without a linker of others.

What the compiler does differently for wasm32 is in the target, not here. Sources of the formats: WebAssembly
Core Specification 2.0, chapter "Binary Format", and the tool conventions, "WebAssembly Object File Linking".
"""
