"""Operators on text against onnxruntime, and the regular expressions of RE2."""

import numpy as np
import pytest
from onnx import TensorProto, ValueInfoProto, helper

from tinyinfer import InferenceSession
from tinyinfer.frontend.onnx.blocks.regular_expressions import full_matcher

ort = pytest.importorskip("onnxruntime")


def compare(op, inputs, outputs=1, opset=20, **attributes):
    names, made = [f"x{i}" for i in range(len(inputs))], [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, made, name="the_node", **attributes)
    kinds = [
        TensorProto.STRING if x.dtype == object else helper.np_dtype_to_tensor_dtype(x.dtype) for x in inputs
    ]
    declared = [helper.make_tensor_value_info(n, k, x.shape) for n, k, x in zip(names, kinds, inputs)]
    graph = helper.make_graph([node], "test", declared, [ValueInfoProto(name=n) for n in made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    feeds = dict(zip(names, inputs))
    options = ort.SessionOptions()
    options.log_severity_level = 4
    theirs = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    got = InferenceSession(model, providers=["REFERENCE"]).run(None, feeds)
    for a, b in zip(got, theirs.run(None, feeds), strict=True):
        assert a.shape == b.shape and a.tolist() == b.tolist()
        assert a.dtype == b.dtype or b.dtype.kind in "OSU"


def words(*texts):
    return np.array(texts, object)


DAYS = words("Monday", "monday", "ÉTÉ", "straße", "", "tuesday", "MONDAY")


@pytest.mark.parametrize("action", ["NONE", "LOWER", "UPPER"])
@pytest.mark.parametrize("exact", [0, 1])
def test_string_normalizer(action, exact):
    shared = {"case_change_action": action, "is_case_sensitive": exact, "locale": "C"}
    plain = words("Monday", "monday", "tuesday", "MONDAY", "Wednesday")
    for stops in (["monday"], ["Monday", "TUESDAY"], ["x"]):
        compare("StringNormalizer", [plain], opset=10, stopwords=stops, **shared)
        compare("StringNormalizer", [plain[None]], opset=10, stopwords=stops, **shared)
    compare("StringNormalizer", [words("monday", "monday")], opset=10, stopwords=["monday"], **shared)


def test_string_concat():
    compare("StringConcat", [DAYS[:, None], words("a", "é", "")])
    compare("StringConcat", [np.array("x", object), DAYS])


@pytest.mark.parametrize("delimiter", [None, "", ",", ", ", "ab"])
@pytest.mark.parametrize("most", [None, 1, 2])
def test_string_split(delimiter, most):
    attributes = {"delimiter": delimiter, "maxsplit": most}
    attributes = {k: v for k, v in attributes.items() if v is not None}
    x = words("a,b", "a, b,,c", " a  b c ", "", "ab", "abab", "x ab y", ",", "  ")
    compare("StringSplit", [x.reshape(3, 3)], 2, **attributes)


def test_regex_full_match():
    x = words("a@b.com", "a@b.com\n", "é", "", "aaab")
    for pattern in (r"[\w.]+@[\w.]+", ".", "(?i)A+B", "a*b?", r"\w|\pL", "^a.*$"):
        compare("RegexFullMatch", [x], pattern=pattern)


@pytest.mark.parametrize("mode", ["TF", "IDF", "TFIDF"])
@pytest.mark.parametrize("seed", range(4))
def test_tf_idf_vectorizer(mode, seed):
    rng = np.random.default_rng(seed)
    least = int(rng.integers(1, 3))
    attributes = {
        "mode": mode,
        "min_gram_length": least,
        "max_gram_length": int(rng.integers(least, 4)),
        "max_skip_count": int(rng.integers(0, 4)),
        "ngram_counts": [0, 4, 10],
        "ngram_indexes": rng.permutation(9).tolist(),
    }
    if rng.random() < 0.7:
        attributes["weights"] = [float(v) for v in rng.uniform(0, 2, 9)]
    pool = [2, 3, 5, 4, 5, 6, 2, 3, 3, 3, 2, 3, 4, 4, 5, 6]
    for shape in ((12,), (3, 8), (1, 1)):
        x = rng.integers(2, 7, shape)
        compare("TfIdfVectorizer", [x], opset=9, pool_int64s=pool, **attributes)
        compare("TfIdfVectorizer", [x.astype(np.int32)], opset=9, pool_int64s=pool, **attributes)
        named = {"pool_strings": [f"w{n}" for n in pool]}
        text = np.array([f"w{n}" for n in x.reshape(-1)], object).reshape(shape)
        compare("TfIdfVectorizer", [text], opset=9, **named, **attributes)


# ---- regular expressions

MATCHES = [
    ("", "", "a"),
    ("a|bc", "a bc".split(), "ac b abc".split()),
    ("(?:ab)*", ["", "abab"], ["aba"]),
    ("a{2,3}", ["aa", "aaa"], ["a", "aaaa"]),
    ("a{2,}b{0}", ["aa", "aaaaa"], ["a", "aab"]),
    ("a{,2}", ["a{,2}"], ["aa"]),
    ("[a-c-]+", ["a-c"], ["d"]),
    ("[^a-c]", ["d", "\n"], ["a"]),
    ("[]a]+", ["]a"], ["b"]),
    (r"[\d_x]+", ["1_x"], ["٣"]),
    (r"[^\W\d]+", ["ab_"], ["1", "é"]),
    ("[[:alpha:][:^ascii:]]+", ["aé"], ["1"]),
    (r"\pL+\p{Nd}\P{L}", ["é1-"], ["1é-"]),
    (r"\x41\x{1F600}\101\n", ["A😀A\n"], ["A"]),
    (r"\Qa.b*\E+", ["a.b*", "a.b***"], ["axb"]),
    ("(?i)é[a-b]", ["ÉB", "éa"], ["eb"]),
    ("a(?i)b|c", ["aB", "C"], ["Ab"]),
    ("(?i:a)b", ["Ab"], ["AB"]),
    ("(?s)a.b", ["a\nb"], ["ab"]),
    ("a.b", ["axb"], ["a\nb"]),
    ("(?m)a$\n^b", ["a\nb"], ["ab"]),
    ("a$\n", [], ["a\n"]),
    (r"\ba\b \Bb?", ["a "], ["a b"]),
    ("(?P<name>a)(?<other>b)", ["ab"], ["a"]),
    (r"\Aa\z", ["a"], ["a\n"]),
    ("(a*)*b", ["aaab"], ["aaa"]),
    ("(a?){20}a{20}", ["a" * 20], ["a" * 19]),
]


@pytest.mark.parametrize("pattern,right,wrong", MATCHES, ids=[m[0][:12] for m in MATCHES])
def test_regular_expressions(pattern, right, wrong):
    matches = full_matcher(pattern)
    assert all(matches(text) for text in right)
    assert not any(matches(text) for text in wrong)


REFUSED = [
    "(",
    ")",
    "[",
    "a**",
    "*a",
    r"\1",
    "(?=a)",
    "(?<!a)",
    "a{1001}",
    "a{3,2}",
    "[b-a]",
    r"\pQ",
    "(?x)",
    r"\j",
]


@pytest.mark.parametrize("pattern", [*REFUSED, "(" * 5000, "((a{1000}){1000}){1000}", "\\", r"\x{110000}"])
def test_other_regular_expressions_are_refused(pattern):
    with pytest.raises(ValueError):
        full_matcher(pattern)


def test_no_expression_takes_exponential_time():
    assert not full_matcher("(a+)+b")("a" * 5000)
