"""Every operator in every version: models at exactly that opset, against whoever runs that version.

The result is compared with onnxruntime at the same opset, else with onnxruntime on the same computation as
another opset writes it, else with ONNX's reference evaluator or with what the case says.
"""

import functools
import warnings

import numpy as np
import onnx
import pytest
from onnx_models import feeds_of, one_op
from opset_cases import CASES

import tinyinfer
from tinyinfer.frontend.onnx.op_table import OP_TABLE, find_op
from tinyinfer.frontend.onnx.schema_functions import has_function

onnxruntime = pytest.importorskip("onnxruntime")

NEWEST = onnx.defs.onnx_opset_version()


@functools.cache
def versions(op):
    """The opsets at which a version of `op` begins, and the last one before the next begins."""
    known = onnx.defs.get_all_schemas_with_history()
    found = {s.since_version for s in known if s.domain == "" and s.name == op}
    begins = sorted(found) or [1]
    return sorted({*begins, *(v - 1 for v in begins if v > begins[0]), NEWEST})


def schema(op, opset):
    """The schema in force, None where the operator is none of ONNX's any more."""
    try:
        found = onnx.defs.get_schema(op, max_inclusive_version=opset)
    except onnx.defs.SchemaError:
        return None
    return None if found.deprecated else found


def model_of(op, case, opset):
    attributes = dict(case.attributes)
    known = schema(op, opset)
    if known is not None and "consumed_inputs" in known.attributes:
        attributes["consumed_inputs"] = [0] * len(case.inputs)
    inputs = [None if x is None else np.asarray(x) for x in case.inputs]
    model = one_op(op, inputs, case.outputs, opset, case.constants, **attributes)
    model.ir_version = 3 if opset < 9 else 4 if opset < 15 else 10
    if model.ir_version < 4:  # every initializer was an input
        for tensor in model.graph.initializer:
            model.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    return model, {k: v for k, v in feeds_of(model, inputs).items() if int(k[1:]) not in case.constants}


def by_onnxruntime(op, case, opset):
    model, feeds = model_of(op, case, opset)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return session.run(None, feeds)
    except Exception:  # noqa: BLE001 - whatever it is, onnxruntime does not run this version
        return None


def by_the_reference(op, case, opset):
    from onnx.reference import ReferenceEvaluator

    model, feeds = model_of(op, case, opset)
    try:
        return ReferenceEvaluator(model).run(None, feeds)
    except Exception:  # noqa: BLE001 - as above
        return None


def truth(op, maker, opset):
    """The expected outputs, and who says so."""
    case = maker(opset)
    if case.expected is not None:
        return case.expected, "the case"
    others = sorted(versions(op), key=lambda v: (v < opset, abs(v - opset)))
    for version in others:
        other = maker(version)
        found = None if other is None else by_onnxruntime(op, other, version)
        if found is not None:
            return found, f"onnxruntime at {version}"
    return by_the_reference(op, case, opset), "the reference"


@pytest.mark.parametrize("op", sorted(CASES))
def test_every_version(op):
    assert ("ai.onnx", op) in OP_TABLE
    failures = []
    for opset in versions(op):
        checking = onnx.checker.C.CheckerContext()
        checking.ir_version, checking.opset_imports = 10, {"": opset}
        for number, maker in enumerate(CASES[op]):
            case = maker(opset)
            if case is None:
                continue
            model, feeds = model_of(op, case, opset)
            if schema(op, opset) is not None:
                onnx.checker.check_node(model.graph.node[0], checking)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected, who = truth(op, maker, opset)
            where = f"{op}, opset {opset}, case {number}, against {who}"
            if expected is None:
                failures.append(f"{where}: nobody knows the result")
                continue
            try:
                results = tinyinfer.InferenceSession(model, providers=["REFERENCE"]).run(None, feeds)
            except Exception as error:  # noqa: BLE001 - all failures of an operator at once
                failures.append(f"{where}: {type(error).__name__}: {error}")
                continue
            for result, wanted in zip(results, expected):
                wanted = np.asarray(wanted)
                if result.shape != wanted.shape or result.dtype != wanted.dtype:
                    failures.append(
                        f"{where}: {result.dtype}{result.shape} for {wanted.dtype}{wanted.shape}"
                    )
                elif not np.allclose(result, wanted, 1e-4, 1e-5, equal_nan=True):
                    failures.append(f"{where}: {result.ravel()[:5]} for {wanted.ravel()[:5]}")
    assert not failures, "\n".join(failures)


def test_a_supported_operator_is_supported_in_every_version():
    """An entry of the op table, or ONNX's own function body, for each version that ONNX lists."""
    missing = [
        (s.name, s.since_version)
        for s in onnx.defs.get_all_schemas_with_history()
        if (s.domain or "ai.onnx", s.name) in OP_TABLE
        and not s.deprecated
        and find_op(s.domain or "ai.onnx", s.name, s.since_version) is None
        and not has_function(s.domain or "ai.onnx", s.name, s.since_version)
    ]
    assert not missing


def identity_like(ir_version, opsets):
    model = one_op("Add", [np.ones((2, 3), np.float32)] * 2)
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid("", v) for v in opsets)
    model.ir_version = ir_version
    return model


@pytest.mark.parametrize("ir_version", range(1, onnx.IR_VERSION + 1))
def test_every_ir_version(ir_version):
    model = identity_like(ir_version, [] if ir_version < 3 else [9])
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    (y,) = tinyinfer.InferenceSession(model, providers=["CPU"]).run(None, {"x0": x, "x1": x})
    np.testing.assert_array_equal(y, x + x)


def test_a_model_without_opsets_broadcasts_as_opset_1():
    x, b = np.ones((2, 3, 4), np.float32), np.arange(3, dtype=np.float32)
    model = one_op("Add", [x, b], broadcast=1, axis=1)
    del model.opset_import[:]
    model.ir_version = 1
    for attribute in model.graph.node[0].attribute:
        attribute.type = 0  # IR version 1 had no such field
    (y,) = tinyinfer.InferenceSession(model, providers=["CPU"]).run(None, {"x0": x, "x1": b})
    np.testing.assert_array_equal(y, x + b[:, None])
