"""The reader: YAML 1.2 and nothing else, bounded, and values by their annotations."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from nabla.cli.parsing import RUN, parse, take_options, told
from nabla.core.errors import ConfigError
from nabla.launch.config import reader
from nabla.launch.config.reader import conform, dump, load, make, merged, parse_option, put, settle
from nabla.launch.config.resolve import fill
from nabla.launch.config.run import RunConfig
from nabla.launch.reasoner import NablaReasoner
from nabla.study.ablation.config import AblationConfig
from nabla.study.evaluation.config import EvaluationConfig
from tests.study.evaluation.small import VALUES, small

# -- YAML --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"3"', "3"), ("'true'", "true"), ("!!str 3", "3"), ("3", 3), ("+12", 12), ("-7", -7), ("012", 12),
        ("0o17", 15), ("0x1F", 31), ("1e-3", 0.001), ("1E3", 1000.0), ("1.", 1.0), (".5", 0.5), ("2.50", 2.5),
        ("-.inf", -math.inf), ("true", True), ("FALSE", False), ("yes", "yes"), ("no", "no"), ("on", "on"),
        ("off", "off"), ("null", None), ("~", None), ("''", ""), ("1_000", "1_000"), ("12:30", "12:30"),
        ("2020-01-01", "2020-01-01"), ("0b11", "0b11"), ("nan", "nan"), ("inf", "inf"), ("=", "="),
        ("tRUE", "tRUE"), ("[1, '2', three]", [1, "2", "three"]), ("{a: , b: x}", {"a": None, "b": "x"}),
        ("{1: a, 1e-3: b, true: c}", {"1": "a", "1e-3": "b", "true": "c"}), ('"\\ud83d\\ude00"', "😀"),
        ("- |\n  a\n  b\n", ["a\nb\n"]), ("%YAML 1.2\n---\n012", 12), ("!!float 3", 3.0),
    ],
)  # fmt: skip
def test_scalars_are_those_of_the_core_schema(text, value):
    found = reader.parse(text)
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_read_and_no_argument_takes_it():
    assert math.isnan(reader.parse(".nan"))
    with pytest.raises(ConfigError, match=r"x is a number \(got nan\)"):
        conform(float, math.nan, "x")


def test_merge_keys_and_aliases():
    text = "a: &a {x: 1, y: 2}\nb: {y: 3, <<: *a}\nc: {<<: [*a, {y: 9, z: 9}]}\nd: *a\ne: {'<<': 1}"
    found = reader.parse(text)
    assert found["b"] == {"x": 1, "y": 3}
    assert found["c"] == {"x": 1, "y": 2, "z": 9}
    assert (found["d"], found["e"]) == ({"x": 1, "y": 2}, {"<<": 1})


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 40)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {b: 1, c: 2, b: 3}", r"a\.b: this key is given twice \(line 1\)"),
        ("a: 1\nb: 2\na: 1", r"a: this key is given twice \(line 3\)"),
        ("a: {<<: {}, <<: {}}", r"a\.<<: this key is given twice"),
        ("a: {<<: 3}", r"a\.<<: what is merged"),
        ("a: &x [*x]", r"a\.0: \*x names no complete value"),
        ("&x {a: {b: *x}}", r"a\.b: \*x names no complete value"),
        ("a: *x", r"a: \*x names no complete value"),
        (LAUGHS, r"more than 100,000 values \(line \d+\)"),
        ("a: " + "[" * 100_000, r"a\.0\.0.*nested in more than 64 levels"),
        ("a: " + "[" * 100_000 + "]" * 100_000, "nested in more than 64 levels"),
        ("- " * 100_000, "nested in more than 64 levels"),
        ("{a: " * 100_000, "nested in more than 64 levels"),
        ("a: 1e999", "a: 1e999 is beyond the largest number"),
        ("a: " + "9" * 5000, "a: a number of 5000 digits is not read"),
        ("a: !!python/name:os.system x", "a: the tag .* is not read"),
        ("a: !!int x", "a: the tag .* not with 'x'"),
        ("a: !!set {x}", "a: the tag .*set is not read"),
        ("a: !mine [1]", "a: the tag !mine is not read"),
        ("? [a]\n: 1", "a key is text"),
        ('a: "\\ud83d"', "a: half of a pair"),
        ('a: "\\UFFFFFFFF"', "malformed YAML"),
        ("a: [1", "malformed YAML"),
        ("a: \x00", "malformed YAML"),
        ("a: 1\n---\na: 2", "several documents"),
        ("", "is empty"),
        ("# nothing\n", "is empty"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(text, message):
    with pytest.raises(ConfigError, match=message):
        reader.parse(text)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("lm: é".encode("latin-1"), "byte 4 is no UTF-8"),
        ("lm: a".encode("utf-16"), "byte order mark of UTF-16"),
        ("lm: a".encode("utf-16-be"), "malformed YAML"),
        ("lm: a".encode("utf-8-sig"), "byte order mark of UTF-8"),
        (bytes(range(256)), "malformed YAML|no UTF-8"),
        (b"lm: " + b"a" * 2**20, "more than 1,048,576 bytes"),
        (b"", "it is empty"),
        (b"- 1", "is a mapping"),
        (b"3", "is a mapping"),
        (b"a: 1\n...\n---\nb: 1", "several documents"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("door", [RunConfig, EvaluationConfig, AblationConfig])
def test_files_that_are_none_are_refused_at_every_door(data, message, door, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=message):
        door.of(load(path)) if door is RunConfig else door.load(path)


def test_a_path_that_is_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere", "a\0b"):
        with pytest.raises(ConfigError, match="cannot be read"):
            load(path)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


@given(TREES)
@example(["1e-3", "0o17", "yes", "1_000", "012", "~", "", "<<", "=", "!x", "&x", "a: b", "# c", " ", "\n"])
@example(["\x85", "a\x85b", "\u2028", "\ufeff", "\x7f", "\t", "\r"])
@example({"<<": {"a": 1}, "1": 2, "": 3, "true": "true", "x" * 200: "y"})
def test_what_is_dumped_reads_back_equal_and_of_the_same_types(tree):
    text = dump(tree)
    assert repr(reader.parse(text)) == repr(tree)


@given(st.lists(st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS))
def test_json_is_read_as_json(tree):
    assert repr(reader.parse(json.dumps(tree))) == repr(tree)


@given(st.binary(max_size=300) | st.text("[]{}&*!|>'\"%@`:,-? \n\t#<ab0x.e~", max_size=60).map(str.encode))
@example(b"%YAML 1.99999999999999999999\n--- a")
@example(b"&a [&a *a]")
@example(b'"\\x')
def test_any_bytes_are_a_mapping_or_a_config_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "bytes.yaml"
    path.write_bytes(data)
    with suppress(ConfigError):
        assert isinstance(load(path), dict)


@given(TEXTS | st.text("[]{}&*!|>'\"%@`:,-? #ab0.e~", max_size=30))
def test_any_value_of_an_option_is_a_value_or_a_config_error(text):
    assert parse_option(text, str) is not None  # an option that takes text takes any
    try:
        parse_option(text)
    except ConfigError:
        with pytest.raises(ConfigError):
            reader.parse(text)


# -- values by their annotations ------------------------------------------------------------------------


@dataclass(frozen=True)
class Inner:
    size: int
    scale: float = 1.0


@dataclass(frozen=True)
class Outer:
    inner: dict[str, Inner]
    kind: Literal["a", "b"] = "a"
    rates: list[float] = field(default_factory=list)
    name: str | None = None
    on: bool = False
    rest: dict[str, Any] = field(default_factory=dict)


def test_a_dataclass_is_made_down_to_its_parts():
    found = make(Outer, {"inner": {"x": {"size": 3, "scale": 4}}, "rates": (1, 2.5), "rest": {"y": ["3"]}})
    assert found == Outer({"x": Inner(3, 4.0)}, rates=[1.0, 2.5], rest={"y": ["3"]})
    assert type(found.inner["x"].scale) is type(found.rates[0]) is float


@pytest.mark.parametrize(
    ("values", "path", "message"),
    [
        ({}, None, "Outer needs 'inner'"),
        ({"inner": {}, "knd": "a"}, "knd", r"^knd: Outer has no key 'knd'\. Did you mean 'kind'"),
        ({"inner": 3}, "inner", r"inner is a mapping \(got 3\)"),
        ({"inner": {"x": 3}}, "inner.x", r"inner\.x is a mapping"),
        ({"inner": {"x": {}}}, "inner.x", r"inner\.x needs 'size'"),
        ({"inner": {"x": {"size": 1, "siz": 2}}}, "inner.x.siz", r"inner\.x has no key 'siz'"),
        ({"inner": {"x": {"size": True}}}, "inner.x.size", r"inner\.x\.size is a whole number \(got True\)"),
        ({"inner": {"x": {"size": 1.5}}}, "inner.x.size", "a whole number"),
        ({"inner": {"x": {"size": math.inf}}}, "inner.x.size", "a whole number"),
        ({"inner": {"x": {"size": math.nan}}}, "inner.x.size", "a whole number"),
        ({"inner": {"x": {"size": "3"}}}, "inner.x.size", "a whole number"),
        ({"inner": {"x": {"size": None}}}, "inner.x.size", "a whole number"),
        ({"inner": {"x": {"size": 1, "scale": "1"}}}, "inner.x.scale", "a number"),
        ({"inner": {"x": {"size": 1, "scale": True}}}, "inner.x.scale", "a number"),
        ({"inner": {"x": {"size": 1, "scale": 10**400}}}, "inner.x.scale", "a number"),
        ({"inner": {}, "kind": "c"}, "kind", "kind is one of a, b"),
        ({"inner": {}, "rates": 3}, "rates", "rates is a list"),
        ({"inner": {}, "rates": "3"}, "rates", "rates is a list"),
        ({"inner": {}, "rates": [1, "x"]}, "rates.1", r"rates\.1 is a number"),
        ({"inner": {}, "name": 3}, "name", "name is text or null"),
        ({"inner": {}, "on": "yes"}, "on", "on is true or false"),
        ({"inner": {}, "on": 1}, "on", "on is true or false"),
        ({"inner": {}, "rest": [1]}, "rest", "rest is a mapping"),
    ],
)
def test_values_of_another_type_are_refused_with_their_path(values, path, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make(Outer, values)
    assert caught.value.path == path


def test_infinity_is_a_number_where_a_number_is_meant():
    assert conform(float, math.inf) == math.inf


def test_puts_and_merges_leave_what_they_were_given():
    below = {"a": {"b": 1}}
    tree = {"x": below, "rm": "path"}
    put(tree, ["x", "a", "c"], 2)
    put(tree, ["rm", "aggregation"], "min", "path")
    assert tree == {"x": {"a": {"b": 1, "c": 2}}, "rm": {"path": "path", "aggregation": "min"}}
    assert below == {"a": {"b": 1}}
    assert merged(below, {"a": {"c": 2}, "d": 3}) == {"a": {"b": 1, "c": 2}, "d": 3}
    assert below == {"a": {"b": 1}}


# -- doors ---------------------------------------------------------------------------------------------

#: (key path in YAML, value as text, what is said of it).
UNFIT = [
    ("method.dto.steps", "abc", "a whole number"),
    ("method.dto.steps", '"3"', "a whole number"),
    ("method.max_rollouts", "true", "a whole number or null"),
    ("method.max_rollouts", ".inf", "a whole number or null"),
    ("method.sampling.top_k", ".nan", "a whole number"),
    ("method.sampling.temperature", "hot", "a number"),
    ("engine.batch_size", "abc", "a whole number"),
    ("engine.reuse_prefixes", "no", "true or false"),
    ("seed", "1.5", "a whole number"),
    ("place", "off", "true or false"),
    ("devices", "0", None),
    ("num_nodes", "-1", None),
]


@pytest.mark.parametrize(("path", "text", "wanted"), UNFIT)
def test_each_door_speaks_its_own_language(path, text, wanted, tmp_path):
    said = f"{path} is {wanted} (got " if wanted else f"{path} must be at least 1 (got "
    keys, tree = path.split("."), {"method": {"name": "nabla-reasoner"}}
    put(tree, keys, "VALUE")
    file = tmp_path / "x.yaml"
    file.write_text(dump({"lm": "sandbox:latin-policy", **tree}).replace("VALUE", text))
    with pytest.raises(ConfigError) as caught:
        RunConfig.of(load(file)).resolved()
    assert str(caught.value).startswith(said)
    arguments = ["solve", "x", f"--{path}", text]
    call = parse(arguments)
    with pytest.raises(ConfigError) as caught:
        call.config.changed(call.changes).resolved()
    assert told(caught.value, arguments).startswith(f"--{said}")
    put(tree, keys, reader.parse(text))
    if "." in path or not wanted:  # the types of others are checked by the tests' own hook before
        with pytest.raises(ConfigError) as caught:
            RunConfig(**tree).resolved()
        assert str(caught.value).startswith(said)


def test_a_configuration_made_in_python_is_settled():
    @dataclass(frozen=True)
    class Settled(Inner):
        __post_init__ = settle

    assert type(Settled(1, 2).scale) is float
    with pytest.raises(ConfigError, match=r"^size is a whole number \(got True\)"):
        Settled(True)


def test_an_unfit_part_of_a_reasoner_is_named(latin_lm, latin_rm):
    for part, value in (("steps", True), ("max_rollouts", 1.5), ("temperature", "hot")):
        with pytest.raises(ConfigError, match=f"^{part} is a "):
            NablaReasoner(latin_lm, latin_rm, **{part: value})


def test_an_evaluation_names_its_method_and_task():
    methods = {"best": {"name": "best-of-n", "n": "3"}}
    with pytest.raises(ConfigError, match=r"^methods\.best\.n is a whole number \(got '3'\)"):
        small(methods=methods).resolved()
    task = {**VALUES["tasks"]["squares"], "rewards": {"outcome": 3}}
    with pytest.raises(ConfigError, match=r"^tasks\.squares\.rewards\.outcome is text or"):
        small(tasks={"squares": task})


def test_quotes_are_respected_under_free_arguments_too(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text(
        "lm: a\nlm_arguments: {revision: '3', x: {y: ['true', 1e-3]}}\nrm: {name: process, path: a, v: '0'}\n"
        "callbacks: [{name: progress, description: '7'}]\n"
    )
    for config in (RunConfig.of(load(file)), parse(["solve", "x", "--config", str(file)]).config):
        assert config.lm_arguments == {"revision": "3", "x": {"y": ["true", 0.001]}}
        assert config.rm["v"] == "0"
        assert config.callbacks[0]["description"] == "7"
    given = ["--lm_arguments.revision", '"3"', "--lm_arguments.n=3", "--rm", "{name: process, v: '0'}"]
    _, values, _ = take_options(given, RUN)
    assert values == {"lm_arguments": {"revision": "3", "n": 3}, "rm": {"name": "process", "v": "0"}}


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("Answer: yes", "Answer: yes"), ("a # b", "a # b"), ("[INST] brief", "[INST] brief"), ("3", "3"),
        ("- brief", "- brief"), ('"3"', "3"), ("null", None), ("", ""), ("%", "%"), ("true", "true"),
    ],
)  # fmt: skip
def test_text_on_the_command_line_is_taken_as_it_stands(given, value):
    assert parse(["solve", "x", "--system", given]).config.system == value


def test_later_options_come_before_earlier_ones_and_before_the_file(tmp_path):
    (tmp_path / "x.yaml").write_text("seed: 1\nengine: {live: 2, batch_size: 3}\nmethod: {name: greedy}\n")
    call = parse(["solve", "x", "--seed=5", "--config", str(tmp_path / "x.yaml"), "--engine.live", "7"])
    assert call.config.seed == 5
    assert call.config.engine == {"live": 7, "batch_size": 3}
    assert (call.config.method, call.changes) == ({"name": "greedy"}, None)
    (tmp_path / "y.yaml").write_text("seed: 2\nrm: {path: a, label: 1}\n")
    files = ["--config", str(tmp_path / "x.yaml"), "--config", str(tmp_path / "y.yaml")]
    config = parse(["solve", "x", "--rm.name", "process", *files, "--engine", "{live: 4}"]).config
    assert (config.seed, config.engine) == (2, {"live": 4})  # the later file's
    assert config.rm == {"path": "a", "label": 1, "name": "process"}
    changes = parse(["solve", "x", "--method.n", "3", "--method", "best-of-n", "--method.n", "4"]).changes
    assert changes == {"n": 4, "name": "best-of-n"}


@pytest.mark.parametrize("option", ["--callbacks+", "--seeds", "--lms.x", "--accel", "--print_config"])
def test_an_option_that_is_none_is_never_passed_over(option, capsys):
    with pytest.raises(SystemExit):
        parse(["solve", "x", option, "cost"])
    assert "unrecognized" in capsys.readouterr().err


def test_a_command_without_a_method_takes_no_option_of_one(capsys):
    with pytest.raises(SystemExit):
        parse(["list", "--method.n", "3"])
    assert "unrecognized" in capsys.readouterr().err


def test_the_dump_reads_the_same_for_other_readers():
    tree = {"a": "1e-3", "b": "yes", "c": "012", "d": 1e-5, "e": None, "f": ["~", "on", "0o17"]}
    assert yaml.safe_load(dump(tree)) == tree


def test_a_default_of_none_may_stay_none_whatever_the_annotation_says():
    class Foreign:
        def __init__(self, n: int = None, m: int = 3) -> None:  # noqa: RUF013 - as other packages have it
            self.n, self.m = n, m

    assert fill(Foreign, {}) == {"n": None, "m": 3}
    assert fill(Foreign, {"n": 2})["n"] == 2
    with pytest.raises(ConfigError, match=r"^m is a whole number"):
        fill(Foreign, {"m": None})
