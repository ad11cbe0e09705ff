"""The options of methods are listed once: flags, run-config keys and refusals come from that table."""

from __future__ import annotations

import inspect

import pytest

from localgd import Int8, LocalGDClassifier, Method, local_gd
from localgd.cli.train import train_command
from localgd.flower.server import KEYS
from localgd.methods.options import BY_NAME, NAMES, OPTIONS, OfMethod, taken
from localgd.methods.table import METHODS, asked, method_named


@pytest.mark.parametrize("name", METHODS)
def test_the_table_lists_what_a_method_takes(name):
    of_function = {option for option, entry in taken(name).items() if not isinstance(entry, OfMethod)}
    assert of_function == set(inspect.signature(METHODS[name]).parameters)


def test_every_method_is_named_and_every_option_belongs_to_some():
    assert list(METHODS) == list(NAMES)
    assert {name for option in OPTIONS for name in option.defaults} == set(METHODS) - {"newton-cg"}  # nothing to set
    assert all(option.defaults for option in OPTIONS)


def test_every_option_is_a_flag_and_a_key_of_a_run_config():
    flags = inspect.signature(train_command).parameters
    assert {option.name for option in OPTIONS} <= flags.keys()
    assert {option.key for option in OPTIONS} <= KEYS.keys()


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        ("local_steps", "7", 7),
        ("lr", "0.5", 0.5),
        ("lr", "auto", "auto"),
        ("momentum", "0", 0.0),
        ("compress", "topk:0.5", "topk:0.5"),
        ("nesterov", True, True),
    ],
)
def test_a_value_may_come_as_text(option, text, value):
    name = next(name for name in NAMES if option in taken(name) and name in ("local-gd", "slowmo"))
    assert method_named(name, **{option: text}) == method_named(name, **{option: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "local-gd", "local_steps": "many"}, "local-steps must be a whole number, got 'many'"),
        ({"name": "slowmo", "nesterov": "perhaps"}, "nesterov must be true or false, got 'perhaps'"),
        ({"name": "lbfgs", "local_steps": 5}, "local_steps has no meaning for method 'lbfgs'; its options are memory"),
        ({"name": "newton-cg", "memory": 5}, "memory has no meaning for method 'newton-cg'; it has no options"),
        ({"name": "slowmo", "compress": "int2"}, "compress must be int8, int4, sign or topk:SHARE"),
        ({"name": "newton", "compress": "int8"}, "compress has no meaning for method 'newton'; its options are max_mb"),
        ({"name": "auto", "late": True}, "late has no meaning for method 'auto'"),
        ({"name": "modified-local-gd", "late": True}, "late has no meaning for method 'modified-local-gd'"),
        ({"name": "local-gd", "late": "no"}, "late must be true or false, got 'no'"),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        asked(**options)


def test_the_late_direction_is_for_just_those_methods_whose_merge_only_adds():
    def adds(name):
        method = METHODS[name]()
        try:
            return isinstance(method, Method) and method.late() != method.late(False)
        except ValueError:
            return False

    assert {name for name in METHODS if adds(name)} == set(BY_NAME["late"].defaults)


@pytest.mark.parametrize(
    ("settings", "method"),
    [
        ({"compress": "int8"}, local_gd().compressed(Int8())),
        ({"lr_schedule": "cosine:9:0.1"}, local_gd(lr_schedule="cosine:9:0.1")),
        ({"late": True}, local_gd().late()),
    ],
)
def test_an_estimator_takes_what_a_command_takes(settings, method):
    X, y, groups = [[2.0, 0.3], [1.5, -0.2], [-2.0, 0.1], [-1.0, -0.4]], [1, 1, 0, 0], ["a", "b", "a", "b"]
    found = LocalGDClassifier("local-gd", n_rounds=5, **settings).fit(X, y, groups=groups)
    assert found.coef_.tolist() == LocalGDClassifier(method, n_rounds=5).fit(X, y, groups=groups).coef_.tolist()
    assert found.coef_.tolist() != LocalGDClassifier("local-gd", n_rounds=5).fit(X, y, groups=groups).coef_.tolist()
    with pytest.raises(ValueError, match=f"{min(settings)} has no meaning for method 'newton'"):
        LocalGDClassifier("newton", C=1.0, **settings).fit(X, y, groups=groups)
    with pytest.raises(ValueError, match=f"{min(settings)} is a setting of the method"):
        LocalGDClassifier(method, **settings).fit(X, y, groups=groups)


@pytest.mark.parametrize("name", [name for name in NAMES if "compress" in taken(name)])
def test_an_option_of_the_method_is_not_one_of_its_function_and_that_is_told(name):
    function = METHODS[name]
    with pytest.raises(
        TypeError, match=rf"compress is .* that {function.__name__} returns: .*\.compressed\(localgd.Int8"
    ):
        function(compress="int8")
    assert function().compressed(Int8()).task.compressor == Int8()
