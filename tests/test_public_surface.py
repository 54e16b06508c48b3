"""What users import, and what comes with it."""

import ast
import inspect
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import jax.numpy as jnp
import optax
import pytest

import lpoptax
from lpoptax import curvature

PACKAGE = Path(lpoptax.__file__).parent
FUNCTIONS = {
    name: function
    for module in (lpoptax, curvature)
    for name in module.__all__
    if inspect.isfunction(function := getattr(module, name))
}
WITH_EXTRAS = {"_matrix_free.py": "matfree"}


def test_all_names_the_whole_public_surface():
    public = {
        name
        for name, value in vars(lpoptax).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(lpoptax.__all__)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_documents_itself(name):
    documentation = inspect.getdoc(FUNCTIONS[name])
    for section in ("Args:", "Returns:", "Raises:", "Examples:", ">>> ", "References:", ".. math::"):
        assert section in documentation, section
    for parameter in inspect.signature(FUNCTIONS[name]).parameters:
        assert f"    {parameter}: " in documentation, parameter


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_is_typed(name):
    signature = inspect.signature(FUNCTIONS[name])
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter
    assert signature.return_annotation is not inspect.Signature.empty


def test_the_package_is_marked_as_typed():
    assert files("lpoptax").joinpath("py.typed").is_file()


def test_the_library_imports_jax_with_its_numpy_and_optax_only():
    imported = set()
    for module in PACKAGE.glob("*.py"):
        names = set()
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module)
        assert not any("_src" in name for name in names)
        imported |= {name.split(".")[0] for name in names} - {WITH_EXTRAS.get(module.name)}
    assert imported - sys.stdlib_module_names == {"jax", "numpy", "optax", "lpoptax"}


def test_only_the_curvature_needs_an_extra_and_names_it():
    # None in the table of modules is a package that cannot be found.
    code = (
        "import sys; sys.modules['matfree'] = None; import lpoptax; print('fine'); import lpoptax.curvature"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.stdout == "fine\n"
    message = "ImportError: lpoptax.curvature needs matfree, which comes with the extra lpoptax[curvature]."
    assert done.stderr.splitlines()[-1] == message


def test_importing_the_library_starts_no_backend():
    # A user must be able to set the number of devices after the import.
    code = "import jax, lpoptax; jax.config.update('jax_num_cpu_devices', 2); assert jax.device_count() == 2"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


@pytest.mark.parametrize(
    "optimizer",
    [
        lpoptax.lpsgd(0.1, 3.0),
        lpoptax.lpsgdm(0.1, 3.0),
        lpoptax.stacey(0.1, 3.0),
        lpoptax.schatten_sgdm(0.1, 3.0),
    ],
)
def test_the_aliases_accept_unknown_extra_arguments(optimizer):
    assert isinstance(optimizer, optax.GradientTransformationExtraArgs)
    x = jnp.ones(2)
    optimizer.update(x, optimizer.init(x), x, something_else=1)
