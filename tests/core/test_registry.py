"""The registry: local components, entry points of other distributions, building from settings."""

from __future__ import annotations

import inspect
import sys
import textwrap

import pytest

from nabla.core.errors import ConfigError
from nabla.core.registry import Registry, construct, summary
from nabla.schedulers.base import Constant, Schedule, schedulers
from nabla.schedulers.cosine import Cosine
from nabla.schedulers.linear import Linear


@pytest.fixture
def registry():
    """A registry of schedules without the shipped ones."""
    return Registry("schedulers", lambda: Schedule)


class Flat(Schedule):
    """A schedule of this test."""

    def __init__(self, value: float = 0.5, *, scale: float = 1.0) -> None:
        if value < 0:
            raise ValueError("no negative values")
        if value > 1:
            raise ConfigError("value must be at most 1", got=value)
        self.value, self.scale = value, scale

    def __call__(self, step):
        return self.value * self.scale

    @property
    def bounds(self):
        return self.value, self.value


class Other(Flat):
    """Another one."""


# -- local components ------------------------------------------------------------------------------


def test_the_slots_folder_is_its_registry():
    assert {"constant", "linear", "cosine"} <= set(schedulers)
    assert schedulers["cosine"] is Cosine
    assert list(schedulers) == sorted(schedulers)
    assert len(schedulers) == len(list(schedulers))
    assert "linear" in schedulers
    assert "no such schedule" not in schedulers
    assert schedulers.get("linear") is Linear
    assert schedulers.get("no such schedule") is None
    assert schedulers.base is Schedule


def test_register_returns_the_class(registry):
    assert registry.register("flat")(Flat) is Flat
    assert registry["flat"] is Flat
    assert registry.name_of(Flat) == registry.name_of(Flat()) == "flat"
    assert registry.name_of(Other) == "Other"  # unregistered: the class's own name


def test_a_duplicate_is_an_error(registry):
    registry.register("flat")(Flat)
    with pytest.raises(ConfigError, match=r"has a component 'flat' already: .*Flat.*Choose another name"):
        registry.register("flat")(Other)
    assert registry["flat"] is Flat


def test_a_reloaded_class_replaces_itself(registry):
    def define():
        class Cell(Flat):
            pass

        return registry.register("cell")(Cell)

    first, second = define(), define()
    assert first is not second
    assert registry["cell"] is second


def test_a_component_is_a_subclass_of_its_slot(registry):
    with pytest.raises(ConfigError, match=r"Subclass nabla\.schedulers\.base\.Schedule"):
        registry.register("thing")(int)


# -- recipes ---------------------------------------------------------------------------------------


def third(scale: float = 1.0) -> Flat:
    """A third, composed of parts."""
    return Flat(1 / 3, scale=scale)


def test_a_recipe_is_a_component_like_any_other(registry):
    recipe = registry.register("third")(third)
    assert registry["third"] is recipe
    assert (recipe.__name__, recipe.__doc__) == (third.__name__, third.__doc__)
    assert inspect.signature(recipe) == inspect.signature(third)
    built, called = registry.build({"name": "third", "scale": 3.0}), recipe(3.0)
    assert isinstance(built, Flat)
    assert built(None) == called(None) == 1.0
    assert registry.name_of(built) == registry.name_of(called) == registry.name_of(recipe) == "third"
    assert registry.name_of(Flat(1 / 3)) == registry.name_of(third()) == "Flat"  # nobody's
    assert summary(recipe) == "A third, composed of parts."
    with pytest.raises(ConfigError, match=r"schedulers/third: .*Its signature is third\(scale: "):
        registry.build({"name": "third", "size": 3})


def test_two_recipes_of_one_class_keep_their_names(registry):
    registry.register("flat")(Flat)
    registry.register("third")(third)

    @registry.register("sixth")
    def sixth() -> Schedule:
        return registry.build({"name": "third", "scale": 0.5})

    assert registry.name_of(sixth()) == "sixth"
    assert registry.name_of(registry.build("third")) == "third"
    assert registry.name_of(registry.build("flat")) == "flat"


def test_a_recipe_says_what_it_returns(registry):
    def silent():
        return Flat()

    def other() -> int:
        return 3

    def unknown(value: Missing = None) -> Flat:
        return Flat()

    for recipe in (silent, other, unknown, lambda: Flat()):
        with pytest.raises(ConfigError, match="return annotation"):
            registry.register("recipe")(recipe)

    def lies() -> Flat:
        return 3

    with pytest.raises(ConfigError, match=r"lies must return a Schedule \(got 'int'\)"):
        registry.register("recipe")(lies)()


def test_a_recipe_keeps_the_rules_of_names(registry):
    registry.register("flat")(Flat)
    with pytest.raises(ConfigError, match="component 'flat' already"):
        registry.register("flat")(third)
    registry.register("third")(third)
    again = registry.register("third")(third)  # a reloaded module
    assert registry["third"] is again


def test_an_unknown_name_names_the_nearest_and_lists_all():
    with pytest.raises(ConfigError) as caught:
        schedulers["cosin"]
    message = str(caught.value)
    assert "Unknown component in schedulers (got 'cosin')" in message
    assert "Did you mean 'cosine'?" in message
    assert f"Known: {', '.join(sorted(schedulers))}." in message
    with pytest.raises(ConfigError) as caught:
        schedulers["zzz"]
    assert "Did you mean" not in str(caught.value)


def test_a_slot_that_failed_to_load_is_never_half_known(registry, monkeypatch):
    import nabla.core.registry

    def broken(name):
        raise ImportError("a module of the slot is broken")

    with monkeypatch.context() as patch:
        patch.setattr(nabla.core.registry.importlib, "import_module", broken)
        for _ in range(2):
            with pytest.raises(ImportError, match="broken"):
                list(registry)
    registry.register("flat")(Flat)
    assert list(registry) == ["flat"]


# -- entry points ----------------------------------------------------------------------------------


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Installs a fake package: ``distribution(name, entry_points, module source)``."""
    made = []

    def install(name, points, source, group="nabla.schedulers"):
        site = tmp_path / name
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = "\n".join(f"{key} = {value}" for key, value in points.items())
        (info / "entry_points.txt").write_text(f"[{group}]\n{lines}\n")
        (site / f"{name}.py").write_text(textwrap.dedent(source))
        monkeypatch.syspath_prepend(str(site))
        made.append(name)

    yield install
    for name in made:
        sys.modules.pop(name, None)


HALF = """
    from nabla.schedulers.base import Constant

    class Half(Constant):
        "Always one half."

        def __init__(self):
            super().__init__(0.5)
"""


def test_another_distributions_component(registry, distribution):
    distribution("fake_half", {"half": "fake_half:Half"}, HALF)
    assert "half" in registry
    assert list(registry) == ["half"]
    assert "fake_half" not in sys.modules  # loaded when it is asked for
    made = registry.build("half")
    assert made.value == 0.5
    assert registry.name_of(made) == "half"
    assert registry["half"] is type(made)


def test_another_distributions_recipe(registry, distribution):
    source = HALF + """
    def quarter(scale: float = 0.5) -> Half:
        "A quarter."
        made = Half()
        made.value *= scale
        return made
"""
    distribution("fake_recipe", {"quarter": "fake_recipe:quarter"}, source)
    made = registry.build("quarter")
    assert made.value == 0.25
    assert registry.name_of(made) == "quarter"
    assert summary(registry["quarter"]) == "A quarter."


def test_another_distributions_component_is_found_by_name_only_in_its_slot(registry, distribution):
    distribution("fake_half", {"half": "fake_half:Half"}, HALF, group="nabla.selectors")
    assert "half" not in registry


def test_a_package_may_decorate_and_declare_the_same_component(registry, distribution, monkeypatch):
    import nabla.schedulers.base

    monkeypatch.setattr(nabla.schedulers.base, "schedulers", registry)
    source = """
        from nabla.schedulers.base import schedulers
        from nabla.schedulers.base import Constant

        @schedulers.register("half")
        class Half(Constant):
            pass
    """
    distribution("fake_twice", {"half": "fake_twice:Half"}, source)
    __import__("fake_twice")  # decorated first, declared later
    assert registry["half"] is sys.modules["fake_twice"].Half


def test_a_package_may_declare_and_then_decorate(registry, distribution, monkeypatch):
    import nabla.schedulers.base

    monkeypatch.setattr(nabla.schedulers.base, "schedulers", registry)
    source = """
        from nabla.schedulers.base import schedulers
        from nabla.schedulers.base import Constant

        @schedulers.register("half")
        class Half(Constant):
            pass
    """
    distribution("fake_late", {"half": "fake_late:Half"}, source)
    assert "half" in registry  # declared first: loading it decorates
    assert registry["half"] is sys.modules["fake_late"].Half


def test_two_packages_of_one_name(registry, distribution):
    distribution("fake_one", {"half": "fake_one:Half", "aaa": "fake_one:Half"}, HALF)
    distribution("fake_two", {"half": "fake_two:Half"}, HALF)
    for _ in range(2):  # the error does not go away, and no half-read list stays behind
        with pytest.raises(ConfigError, match=r"Two packages offer 'half' in nabla\.schedulers"):
            registry["aaa"]


@pytest.mark.parametrize("order", ["registered first", "discovered first"])
def test_a_local_component_of_an_entry_points_name(registry, distribution, order):
    distribution("fake_half", {"half": "fake_half:Half"}, HALF)
    if order == "registered first":
        registry.register("half")(Flat)
        with pytest.raises(ConfigError, match="Two packages offer 'half'"):
            list(registry)
    else:
        list(registry)
        with pytest.raises(ConfigError, match="component 'half' already: fake_half:Half"):
            registry.register("half")(Flat)


@pytest.mark.parametrize("value", ["fake_broken:Missing", "fake_absent:Half", "fake_broken:thing"])
def test_a_failing_entry_point_names_itself(registry, distribution, value):
    distribution("fake_broken", {"bad": value, "good": "fake_broken:Half"}, HALF + "\n    thing = 3\n")
    with pytest.raises(ConfigError, match="'bad'"):
        registry["bad"]
    assert registry.build("good").value == 0.5  # the others go on


@pytest.mark.parametrize("where", ["module", "constructor"])
def test_another_package_does_not_end_the_program(registry, distribution, where):
    end = "import sys\n\n    sys.exit(0)\n" if where == "module" else ""
    source = HALF + f"""
    {end}
    class Ends(Half):
        def __init__(self):
            raise SystemExit(0)
"""
    distribution("fake_exit", {"ends": "fake_exit:Ends"}, source)
    with pytest.raises(ConfigError, match="ends"):
        registry.build("ends")


# -- building --------------------------------------------------------------------------------------


def test_build_from_a_name_a_dict_or_an_instance(registry):
    registry.register("flat")(Flat)
    flat = Flat()
    assert registry.build(flat) is flat
    assert registry.build("flat").value == 0.5
    assert registry.build({"name": "flat", "value": 0.25}).value == 0.25
    made = registry.build({"name": "flat", "value": 0.25}, value=0.75, scale=2.0)
    assert (made.value, made.scale) == (0.25, 2.0)  # the settings win over defaults


@pytest.mark.parametrize("spec", [3, None, {"value": 1.0}, {"name": 3}, ["linear"], Linear])
def test_build_from_anything_else(spec):
    with pytest.raises(ConfigError, match="Not a component of schedulers"):
        schedulers.build(spec)


def test_the_parts_of_a_spec_are_its_name_and_arguments(registry):
    assert registry.parts("x") == ("x", {})
    spec = {"a": 1, "name": "x"}
    assert registry.parts(spec) == ("x", {"a": 1})
    assert spec == {"a": 1, "name": "x"}
    for wrong in (3, None, {"a": 1}, {"name": None}, ["x"]):
        with pytest.raises(ConfigError, match="Not a component of"):
            registry.parts(wrong)


def test_a_spec_is_not_changed():
    spec = {"name": "linear", "start": 1.0, "end": 0.0}
    schedulers.build(spec)
    assert spec == {"name": "linear", "start": 1.0, "end": 0.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"strat": 1.0, "end": 0.0}, "strat|start"), ({"start": 1.0}, "missing a required argument: 'end'")],
)
def test_wrong_arguments_are_shown_with_the_signature(arguments, message):
    with pytest.raises(ConfigError, match=message) as caught:
        schedulers.build({"name": "linear", **arguments})
    assert str(caught.value).startswith("schedulers/linear: ")
    assert "Its signature is" in str(caught.value)
    assert "start: " in str(caught.value)


def test_a_constructor_that_fails(registry):
    registry.register("flat")(Flat)
    with pytest.raises(ConfigError, match=r"constructor of schedulers/flat failed: ValueError") as caught:
        registry.build({"name": "flat", "value": -1.0})
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(ConfigError, match="value must be at most 1"):  # its own words, unwrapped
        registry.build({"name": "flat", "value": 2.0})


def test_an_abstract_class_cannot_be_built(registry):
    class Unfinished(Schedule):
        pass

    registry.register("unfinished")(Unfinished)
    with pytest.raises(ConfigError, match="abstract"):
        registry.build("unfinished")


def test_construct():
    flat = Flat()
    assert construct(Flat, flat) is flat
    assert construct(Flat).value == 0.5
    assert construct(Flat, {"value": 0.25}).value == 0.25
    with pytest.raises(ConfigError, match=r"Flat: got an unexpected .* 'size'.*signature is Flat\("):
        construct(Flat, {"size": 1})
    with pytest.raises(ConfigError, match="Not a Flat"):
        construct(Flat, Constant(1.0))


def test_a_wrong_type_is_the_caller_s_mistake_and_a_failing_constructor_the_component_s():
    class Fragile:
        def __init__(self, n: int, name: str | None = None, share: float = 0.5, parts: list | None = None):
            raise TypeError("oops")

    for arguments, said in (
        ({"n": "4"}, r"n is a whole number \(got '4'\)"),
        ({"n": True}, "n is a whole number"),
        ({"n": 1.5}, "n is a whole number"),
        ({"n": 1, "name": 3}, "name is text or null"),
        ({"n": 1, "share": "0.5"}, "share is a number"),
    ):
        with pytest.raises(ConfigError, match=said) as caught:
            construct(Fragile, arguments)
        assert "constructor" not in str(caught.value)
    for arguments in ({"n": 1}, {"n": 1, "share": 1}, {"n": 1, "parts": "no plain value: its own affair"}):
        with pytest.raises(ConfigError, match="The constructor of Fragile failed: TypeError"):
            construct(Fragile, arguments)


def test_summary():
    assert summary(Flat) == "A schedule of this test."
    assert summary(type("Bare", (), {"__doc__": None})) == ""
