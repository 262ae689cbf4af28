"""The ONNX front end: `load_model` reads a file, `import_graph` makes a Graph of it at given input shapes.

One import function per op and opset range, in `ops/` by family, registered in `op_table.py`.
Running a Graph is elsewhere.
"""

from tinyinfer.frontend.onnx.errors import NeedsValue, UnsupportedModel
from tinyinfer.frontend.onnx.model import OnnxModel, ValueSpec, load_model
from tinyinfer.frontend.onnx.operators import register_all
from tinyinfer.frontend.onnx.whole import blockers, import_graph
from tinyinfer.limits import Limits

register_all()

__all__ = [
    "Limits",
    "NeedsValue",
    "OnnxModel",
    "UnsupportedModel",
    "ValueSpec",
    "blockers",
    "import_graph",
    "load_model",
]
