"""Sphinx configuration: ``sphinx-build -W docs docs/_build/html``."""

from importlib.metadata import version as installed_version

project = "pyrovae"
author = "The pyrovae developers"
copyright = "2026, The pyrovae developers"
release = version = installed_version("pyrovae")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "jupyter_execute", "**.ipynb_checkpoints"]

html_theme = "furo"
html_title = f"pyrovae {version}"
html_static_path = ["_static"]
html_css_files = ["outputs.css"]

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_inherit_docstrings = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
# Pages with code cells are run when they change, and stop the build where they fail.
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_output_stderr = "remove"  # progress bars


def setup(app):
    """Let ``pyrovae.fit`` and the like lead to where the reference documents them."""
    app.connect("missing-reference", find_short_name)


def find_short_name(app, env, node, content):
    """The reference for a name that ``pyrovae`` has from one of its modules."""
    import pyrovae

    module, _, name = node.get("reftarget", "").rpartition(".")
    if module != "pyrovae" or name not in pyrovae._NAMES:
        return None
    target = f"pyrovae.{pyrovae._NAMES[name]}.{name}"
    found = env.get_domain("py").resolve_any_xref(
        env, node["refdoc"], app.builder, target, node, content
    )
    return found[0][1] if found else None
