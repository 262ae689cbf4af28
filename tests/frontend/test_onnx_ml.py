"""The operators of ai.onnx.ml against onnxruntime, and the models of the collection that are made of them."""


import numpy as np
import pytest
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper
from onnx_trees import MODES, apart_trees, listed_trees

from tinyinfer import InferenceSession

ort = pytest.importorskip("onnxruntime")
DOMAIN = "ai.onnx.ml"
TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


def declared(name, x):
    if isinstance(x, np.ndarray):
        kind = TensorProto.STRING if x.dtype == object else helper.np_dtype_to_tensor_dtype(x.dtype)
        return helper.make_tensor_value_info(name, kind, x.shape)
    return x[0](name)


def model_of(op, inputs, outputs, opset, attributes):
    names, results = [f"x{i}" for i in range(len(inputs))], [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, results, name="the_node", domain=DOMAIN, **attributes)
    made = [ValueInfoProto(name=r) for r in results]
    graph = helper.make_graph([node], "test", [declared(n, x) for n, x in zip(names, inputs)], made)
    opsets = [helper.make_opsetid(DOMAIN, opset), helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def fed(inputs):
    return {f"x{i}": x if isinstance(x, np.ndarray) else x[1] for i, x in enumerate(inputs)}


def results(op, inputs, outputs=1, opset=1, provider="REFERENCE", **attributes):
    model = model_of(op, inputs, outputs, opset, attributes)
    return InferenceSession(model, providers=[provider]).run(None, fed(inputs))


def oracle(op, inputs, outputs=1, opset=1, **attributes):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    data = model_of(op, inputs, outputs, opset, attributes).SerializeToString()
    return ort.InferenceSession(data, options, ["CPUExecutionProvider"]).run(None, fed(inputs))


def assert_same(got, wanted, tolerance=1e-5):
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted):
        if isinstance(b, list):
            assert type(a) is list and a == b
            assert [{(type(k), type(v)) for k, v in m.items()} for m in a] == [
                {(type(k), type(v)) for k, v in m.items()} for m in b
            ]
            continue
        assert a.shape == b.shape and a.dtype == b.dtype
        if b.dtype.kind == "f":
            np.testing.assert_allclose(a, b, tolerance, tolerance)
        else:
            assert a.tolist() == b.tolist()


def compare(op, inputs, outputs=1, opset=1, tolerance=1e-5, provider="REFERENCE", **attributes):
    wanted = oracle(op, inputs, outputs, opset, **attributes)
    assert_same(results(op, inputs, outputs, opset, provider, **attributes), wanted, tolerance)


def numbers(rng, *shape, dtype=None):
    dtype = dtype or str(rng.choice(["float32", "float64", "int64", "int32"]))
    if dtype.startswith("int"):
        return rng.integers(-4, 5, shape).astype(dtype)
    return rng.normal(0, 2, shape).astype(dtype)


def floats(rng, count, positive=False):
    values = [float(v) for v in rng.normal(size=count)]
    return [abs(v) for v in values] if positive else values


# ---- trees


def features(rng, rows, columns, dtype):
    x = rng.integers(-4, 5, (rows, columns)).astype(dtype)
    if x.dtype.kind == "f":
        x[rng.random(x.shape) < 0.15] = np.nan
    return x


@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE", "MIN", "MAX"])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_tree_regressor(aggregate, transform):
    rng = np.random.default_rng(len(aggregate) * 100 + len(transform))
    for modes in (MODES, *([m] for m in MODES), MODES[:2]):
        targets = int(rng.integers(1, 4))
        given = str(rng.choice(["all", "tree", "some"])) if targets > 1 else "all"
        attributes = listed_trees(rng, int(rng.integers(1, 6)), 5, targets, modes, given=given)
        if rng.random() < 0.5:
            attributes["base_values"] = floats(rng, targets)
        x = features(rng, int(rng.choice([1, 2, 60])), 5, str(rng.choice(["float32", "float64"])))
        tolerance = 1e-5 if transform != "PROBIT" else 2e-4  # onnxruntime's is single precision throughout
        compare(
            "TreeEnsembleRegressor",
            [x],
            n_targets=targets,
            aggregate_function=aggregate,
            post_transform=transform,
            opset=int(rng.choice([1, 3])),
            tolerance=tolerance,
            **attributes,
        )


@pytest.mark.parametrize("seed", range(8))
def test_tree_classifier(seed):
    rng = np.random.default_rng(seed)
    for given in ("all", "tree", "some", 0, 1):
        for classes in range(2 if given == 1 else 1, 5):
            # onnxruntime leaves the second of two scores undefined after PROBIT, and with one base value
            transform = str(rng.choice(TRANSFORMS if classes != 2 else TRANSFORMS[:4]))
            few = [0, 2] if given in ("tree", "some") else [0, 1, 2]
            counts = {1: [0, 1], 2: few}.get(classes, [0, classes])
            mode, positive = str(rng.choice(MODES)), bool(rng.random() < 0.5)
            attributes = listed_trees(
                rng, int(rng.integers(1, 6)), 5, classes, [mode], "class", given, positive
            )
            base = floats(rng, int(rng.choice(counts)))
            if base:
                attributes["base_values"] = base
            labels = rng.permutation(9)[:classes].tolist()
            if classes > 1 and rng.random() < 0.3:
                attributes["classlabels_strings"] = [f"label {n}" for n in labels]
            else:
                attributes["classlabels_int64s"] = labels
            x = features(
                rng, int(rng.choice([1, 3, 30])), 5, str(rng.choice(["float32", "float64", "int64", "int32"]))
            )
            compare("TreeEnsembleClassifier", [x], 2, 3, post_transform=transform, **attributes)


def test_tree_attributes_as_tensors():
    rng = np.random.default_rng(3)
    attributes = listed_trees(rng, 3, 4, 2)
    for name in ("nodes_values", "target_weights"):
        values = np.array(attributes.pop(name)) + (name == "target_weights") * 1e-9
        attributes[f"{name}_as_tensor"] = numpy_helper.from_array(values)
    attributes["base_values_as_tensor"] = numpy_helper.from_array(np.array([0.25, 0.5]))
    compare("TreeEnsembleRegressor", [features(rng, 20, 4, "float64")], opset=3, n_targets=2, **attributes)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tree_ensemble(seed, dtype):
    rng = np.random.default_rng(seed)
    for aggregate in range(4):
        targets = int(rng.integers(1, 4))
        attributes = apart_trees(rng, 3, 4, targets, dtype)
        # onnxruntime takes 1 for LOGISTIC and 2 for SOFTMAX, the other way round than ONNX
        transform = int(rng.integers(4))
        swapped = {1: 2, 2: 1}.get(transform, transform)
        x = features(rng, 20, 4, dtype)
        got = results(
            "TreeEnsemble", [x], 1, 5, aggregate_function=aggregate, post_transform=transform, **attributes
        )
        wanted = oracle(
            "TreeEnsemble", [x], 1, 5, aggregate_function=aggregate, post_transform=swapped, **attributes
        )
        assert_same(got, wanted)


def test_trees_in_half_precision():
    rng = np.random.default_rng(5)
    attributes = apart_trees(rng, 3, 4, 2, "float16")
    x = features(rng, 20, 4, "float16")
    wide = {
        name: numpy_helper.from_array(numpy_helper.to_array(value).astype("float32"))
        if isinstance(value, TensorProto) and value.data_type == TensorProto.FLOAT16
        else value
        for name, value in attributes.items()
    }
    got = results("TreeEnsemble", [x], opset=5, **attributes)
    wanted = results("TreeEnsemble", [x.astype("float32")], opset=5, **wide)
    assert_same(got, [wanted[0].astype("float16")], 2e-3)


@pytest.mark.parametrize("rows", [1, 7, 300])
def test_compiled_trees(rows):
    rng = np.random.default_rng(rows)
    attributes = listed_trees(rng, 20, 6, 3, prefix="class", depth=6)
    attributes["classlabels_int64s"] = [4, 0, 2]
    x = features(rng, rows, 6, "float32")
    compare("TreeEnsembleClassifier", [x], 2, provider="CPU", post_transform="SOFTMAX", **attributes)


def tree(**changes):
    attributes = {
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [0, 0, 0],
        "nodes_values": [0.5, 0.0, 0.0],
        "nodes_modes": ["BRANCH_LT", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "target_treeids": [0, 0],
        "target_nodeids": [1, 2],
        "target_ids": [0, 0],
        "target_weights": [1.0, 2.0],
        "n_targets": 1,
    }
    return {**attributes, **changes}


def test_small_thresholds_keep_their_side():
    x = np.array([[-1.0], [-0.0], [0.0], [1e-30], [1.0]], np.float32)
    attributes = tree(nodes_values=[0.0, 0.0, 0.0])
    for mode in MODES:
        compare(
            "TreeEnsembleRegressor",
            [x],
            provider="CPU",
            **{**attributes, "nodes_modes": [mode, "LEAF", "LEAF"]},
        )


@pytest.mark.parametrize("depth", [40, 41, 300])
def test_deep_trees(depth):
    count = 2 * depth + 1
    inner = [i % 2 == 0 and i < 2 * depth for i in range(count)]
    leaves = [i for i in range(count) if not inner[i]]
    attributes = {
        "nodes_treeids": [0] * count,
        "nodes_nodeids": list(range(count)),
        "nodes_featureids": [0] * count,
        "nodes_values": [float(i) for i in range(count)],
        "nodes_modes": ["BRANCH_LEQ" if i else "LEAF" for i in inner],
        "nodes_truenodeids": [i + 1 if asks else 0 for i, asks in enumerate(inner)],
        "nodes_falsenodeids": [i + 2 if asks else 0 for i, asks in enumerate(inner)],
        "target_treeids": [0] * len(leaves),
        "target_nodeids": leaves,
        "target_ids": [0] * len(leaves),
        "target_weights": [float(i) for i in range(len(leaves))],
        "n_targets": 1,
    }
    x = np.linspace(-1, count, 20).astype(np.float32)[:, None]
    compare("TreeEnsembleRegressor", [x], provider="CPU", **attributes)


BROKEN = {
    "a cycle": {"nodes_truenodeids": [0, 0, 0]},
    "which does not exist": {"nodes_truenodeids": [7, 0, 0]},
    "asks for feature": {"nodes_featureids": [3, 0, 0]},
    "target 2": {"target_ids": [2, 0]},
    "lists a node twice": {"nodes_nodeids": [0, 1, 1]},
    "must hold 3 numbers": {"nodes_values": [0.5]},
    "'nodes_modes' holds": {"nodes_modes": ["BRANCH_UP", "LEAF", "LEAF"]},
    "must hold 2 numbers": {"target_ids": [0]},
}


@pytest.mark.parametrize("message", BROKEN)
def test_broken_trees_are_refused(message):
    with pytest.raises(Exception, match=message):
        results("TreeEnsembleRegressor", [np.zeros((2, 3), np.float32)], **tree(**BROKEN[message]))


def test_broken_tree_ensembles_are_refused():
    rng = np.random.default_rng(1)
    good = apart_trees(rng, 2, 3, 1, "float32")
    x = np.zeros((2, 3), np.float32)
    count = len(good["nodes_truenodeids"])
    for changes in (
        {"tree_roots": [count]},
        {"nodes_truenodeids": [10**9] * count},
        {"nodes_falsenodeids": [-1] * count},
        {"nodes_modes": helper.make_tensor("modes", 2, [count], [9] * count)},
        {"nodes_trueleafs": [0] * count, "nodes_falseleafs": [0] * count},
    ):
        with pytest.raises(Exception, match="the_node"):
            results("TreeEnsemble", [x], opset=5, **{**good, **changes})


# ---- features, linear models, support vector machines


@pytest.mark.parametrize("seed", range(6))
def test_features(seed):
    rng = np.random.default_rng(seed)
    for _ in range(4):
        count, rows = int(rng.integers(1, 6)), int(rng.integers(1, 5))
        shape = (rows, count) if rng.random() < 0.7 else (count,)
        width = count if rng.random() < 0.5 else 1
        compare("Binarizer", [numbers(rng, *shape, dtype="float32")], threshold=0.25)
        x = numbers(rng, *shape, dtype="float32")
        x[rng.random(x.shape) < 0.3] = np.nan
        compare("Imputer", [x], imputed_value_floats=floats(rng, width), replaced_value_float=float("nan"))
        whole = numbers(rng, *shape, dtype="int64")
        compare("Imputer", [whole], imputed_value_int64s=[7] * width, replaced_value_int64=1)
        compare("Scaler", [numbers(rng, *shape)], scale=floats(rng, width), offset=floats(rng, width))
        x = numbers(rng, *shape)
        x[0] = x[0] * int(rng.integers(2))
        for norm in ("MAX", "L1", "L2"):
            compare("Normalizer", [x], norm=norm)
        places = rng.integers(0, count, int(rng.integers(1, 4)))
        lead = (2,) * int(rng.integers(0, 3))
        compare("ArrayFeatureExtractor", [numbers(rng, *lead, count), places])
        dtype = str(rng.choice(["float32", "float64", "int64", "int32"]))
        parts = [numbers(rng, rows, int(rng.integers(1, 4)), dtype=dtype) for _ in range(3)]
        widths = [max(1, p.shape[1] + int(rng.integers(-1, 2))) for p in parts]
        compare("FeatureVectorizer", parts, inputdimensions=widths)


def test_strings_are_extracted():
    x = np.array([["a", "b", "c"], ["d", "e", "f"]], object)
    compare("ArrayFeatureExtractor", [x, np.array([2, 0])])


@pytest.mark.parametrize("seed", range(6))
def test_linear_models(seed):
    rng = np.random.default_rng(seed)
    for _ in range(5):
        count, classes = int(rng.integers(1, 6)), int(rng.integers(1, 4))
        shape = (int(rng.integers(1, 5)), count) if rng.random() < 0.7 else (count,)
        transform = str(rng.choice(TRANSFORMS[: 4 if classes == 1 else 5]))
        shared = {"coefficients": floats(rng, count * classes), "post_transform": transform}
        x = numbers(rng, *shape, dtype="float32")
        compare("LinearRegressor", [x], targets=classes, intercepts=floats(rng, classes), **shared)
        compare("LinearRegressor", [x], targets=classes, **shared)
        labels = rng.permutation(9)[: max(classes, 2)].tolist()
        named = (
            {"classlabels_strings": [str(n) for n in labels]}
            if rng.random() < 0.4
            else {"classlabels_ints": labels}
        )
        compare(
            "LinearClassifier", [numbers(rng, *shape)], 2, intercepts=floats(rng, classes), **named, **shared
        )


@pytest.mark.parametrize("kernel", ["LINEAR", "POLY", "RBF", "SIGMOID"])
def test_support_vector_machines(kernel):
    rng = np.random.default_rng(len(kernel))
    for classes in (2, 3, 4, 2, 3):
        count = int(rng.integers(1, 5))
        x = numbers(rng, 4, count)
        parameters = [0.3 * abs(float(rng.normal())), float(rng.normal()), float(rng.choice([2, 3]))]
        transform = str(rng.choice(TRANSFORMS[: 4 if classes == 2 else 5]))
        shared = {"kernel_type": kernel, "kernel_params": parameters, "post_transform": transform}
        machines = int(rng.integers(1, 5))
        compare(
            "SVMRegressor",
            [x.astype("float32")],
            coefficients=floats(rng, machines),
            support_vectors=floats(rng, machines * count),
            rho=[0.5],
            n_supports=machines,
            one_class=int(rng.integers(2)),
            **shared,
        )
        labels = {"classlabels_ints": rng.permutation(9)[:classes].tolist()}
        if rng.random() < 0.4:
            labels = {"classlabels_strings": [f"c{i}" for i in range(classes)]}
        per_class = rng.integers(1, 4, classes).tolist()
        vectors, pairs = sum(per_class), classes * (classes - 1) // 2
        positive = bool(rng.random() < 0.4)
        machine = {
            "coefficients": floats(rng, vectors * (classes - 1), positive),
            "support_vectors": floats(rng, vectors * count),
            "rho": floats(rng, pairs),
            "vectors_per_class": per_class,
        }
        compare("SVMClassifier", [x], 2, **machine, **labels, **shared)
        compare(
            "SVMClassifier",
            [x],
            2,
            tolerance=1e-4,
            prob_a=floats(rng, pairs),
            prob_b=floats(rng, pairs),
            **machine,
            **labels,
            **{**shared, "post_transform": "NONE"},
        )
        linear = {"coefficients": floats(rng, classes * count, positive), "rho": [0.25]}
        compare("SVMClassifier", [x], 2, **linear, **labels, **shared)


# ---- labels, categories, maps

WORDS = np.array([["pear", "fig"], ["lime", "fig"]], object)


def test_label_encoder_of_classes():
    compare("LabelEncoder", [WORDS], classes_strings=["fig", "plum", "pear"], default_int64=-5)
    compare("LabelEncoder", [np.array([2, 0, 9, -1])], classes_strings=["fig", "plum", "pear"])


KEYS = {
    "strings": (["fig", "pear", "fig"], WORDS),
    "int64s": ([5, -3, 5], np.array([5, -3, 4])),
    "floats": ([0.5, float("nan"), 0.5], np.array([[0.5, np.nan, 2]], np.float32)),
}
VALUES = {"strings": ["a", "b", "c"], "int64s": [7, 8, 9], "floats": [0.5, 0.25, 2.0]}


@pytest.mark.parametrize("opset", [2, 4])
@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("values", VALUES)
def test_label_encoder(opset, keys, values):
    if keys == values == "floats" or keys != values or keys == "int64s" or opset == 4:
        listed, x = KEYS[keys]
        compare(
            "LabelEncoder", [x], opset=opset, **{f"keys_{keys}": listed, f"values_{values}": VALUES[values]}
        )


@pytest.mark.parametrize("key", ["int16", "int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("value", ["int16", "int32", "int64", "float32", "float64"])
def test_label_encoder_of_tensors(key, value):
    rng = np.random.default_rng(4)
    keys = rng.permutation(np.arange(-20, 20))[:33].astype(key)
    values = rng.integers(-99, 99, 33).astype(value)
    default = np.array([3], value)
    x = np.arange(-25, 25).reshape(5, 10).astype(key)
    got = results(
        "LabelEncoder",
        [x],
        opset=4,
        provider="CPU",
        keys_tensor=numpy_helper.from_array(keys),
        values_tensor=numpy_helper.from_array(values),
        default_tensor=numpy_helper.from_array(default),
    )[0]
    table = dict(zip(keys.tolist(), values.tolist()))
    assert got.dtype == value and got.tolist() == [[table.get(v, 3) for v in row] for row in x.tolist()]


def test_category_mapper():
    attributes = {"cats_strings": ["fig", "pear"], "cats_int64s": [4, 2]}
    compare("CategoryMapper", [WORDS], default_int64=-2, **attributes)
    compare("CategoryMapper", [np.array([2, 3, 4])], default_string="none", **attributes)


def test_one_hot_encoder():
    for dtype in ("int64", "float32", "float64"):
        x = np.array([[1, 5], [2, 9]], dtype)
        compare("OneHotEncoder", [x], cats_int64s=[1, 2, 5, 2])
    compare("OneHotEncoder", [np.array([1, 5])], cats_int64s=[1, 5], zeros=0)
    compare("OneHotEncoder", [WORDS], cats_strings=["fig", "plum", "pear"])
    with pytest.raises(Exception, match="is no category"):
        results("OneHotEncoder", [np.array([1, 6])], cats_int64s=[1, 5], zeros=0)


def test_zip_map():
    x = np.array([[0.25, 0.7, 0.1], [1, 2, 3]], np.float32)
    compare("ZipMap", [x], classlabels_int64s=[3, -1, 7])
    compare("ZipMap", [x], classlabels_strings=["z", "a", "é"])
    compare("ZipMap", [x[0]], classlabels_int64s=[3, -1, 7])


def a_map(key, value, content):
    value_type = helper.make_tensor_type_proto(value, None)
    kind = helper.make_map_type_proto(key, value_type)
    return (lambda name: helper.make_value_info(name, kind)), content


INT64, STRING, FLOAT, DOUBLE = TensorProto.INT64, TensorProto.STRING, TensorProto.FLOAT, TensorProto.DOUBLE


@pytest.mark.parametrize("cast", ["TO_FLOAT", "TO_INT64", "TO_STRING"])
@pytest.mark.parametrize("form", ["DENSE", "SPARSE"])
def test_cast_map(cast, form):
    content = a_map(INT64, FLOAT, {5: 2.75, 0: -1.5, 2: 1e-3})
    compare("CastMap", [content], cast_to=cast, map_form=form, max_map=5)


def test_cast_map_of_strings():
    content = a_map(INT64, STRING, {3: "12", 1: " -7.5e0m"})  # onnxruntime's Python cannot feed this map
    for cast, dense, sparse in (
        ("TO_FLOAT", [-7.5, 12], [0, -7.5, 0, 12]),
        ("TO_INT64", [-7, 12], [0, -7, 0, 12]),
        ("TO_STRING", [" -7.5e0m", "12"], ["0.f", " -7.5e0m", "0.f", "12"]),
    ):
        assert results("CastMap", [content], cast_to=cast)[0].tolist() == [dense]
        got = results("CastMap", [content], cast_to=cast, map_form="SPARSE", max_map=4)
        assert got[0].tolist() == [sparse]
    with pytest.raises(Exception, match="no number"):
        results("CastMap", [a_map(INT64, STRING, {3: "twelve"})], cast_to="TO_FLOAT")


def test_dict_vectorizer():
    compare("DictVectorizer", [a_map(STRING, FLOAT, {"b": 0.75})], string_vocabulary=["a", "b"])
    compare("DictVectorizer", [a_map(INT64, FLOAT, {4: 0.5, 9: 0.25})], int64_vocabulary=[9, 4, 1])


@pytest.mark.parametrize("kind,dtype,number", [(DOUBLE, "float64", 0.1), (INT64, "int64", 1 << 60)])
def test_dict_vectorizer_of_wide_numbers(kind, dtype, number):
    # onnxruntime's Python cannot feed these maps
    got = results("DictVectorizer", [a_map(STRING, kind, {"b": number})], string_vocabulary=["a", "b"])[0]
    assert got.dtype == dtype and got.tolist() == [[0, number]]


# ---- models


@pytest.mark.parametrize(
    "name", ["rf_iris", "sk_rf_classifier", "sk_scaler_logreg_zipmap", "xgb_classifier_tree"]
)
def test_models_of_the_collection(name, shared_models):
    path = shared_models / f"{name}.onnx"
    theirs = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    ours = InferenceSession(path, providers=["CPU"])
    given = theirs.get_inputs()[0]
    for rows in (1, 4, 100):
        x = np.random.default_rng(rows).uniform(0, 7, (rows, given.shape[1])).astype(np.float32)
        wanted, got = theirs.run(None, {given.name: x}), ours.run(None, {given.name: x})
        assert [o.name for o in ours.get_outputs()] == [o.name for o in theirs.get_outputs()]
        for a, b in zip(got, wanted):
            if isinstance(b, list):
                assert [list(m) for m in a] == [list(m) for m in b]
                a, b = (np.array([list(m.values()) for m in v]) for v in (a, b))
            assert_same([a], [b], 2e-6)
