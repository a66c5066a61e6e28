"""The dependencies that a wheel for other machines has beside those of pyproject.toml.

scikit-build-core calls this while it builds (``[[tool.dynamic-metadata]]`` in pyproject.toml). In the environment,
``CYLLAMA_WHEEL=1`` asks for such a wheel, and ``CYLLAMA_WHEEL_LABEL`` names its backend, such as "cuda12".
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Mapping
from typing import Any

#: nanobind, compiled for each Python, since the stable ABI lacks what it needs. It goes with the nanobind of the build.
BACKEND = "nanobind-backend==1.0.0"
#: Shared libraries that are not in the wheel, found beside it (``INSTALL_RPATH`` in ext/CMakeLists.txt).
LIBRARIES = {"cuda12": ["nvidia-cublas-cu12", "nvidia-cuda-runtime-cu12"]}


def dynamic_metadata(settings: Mapping[str, Any], project: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG001  # hook
    """Return the dependencies to add: none to a build for this machine, which has what it needs."""
    dependencies: list[str] = []
    if os.environ.get("CYLLAMA_WHEEL") == "1":
        if not sysconfig.get_config_var("Py_GIL_DISABLED"):  # otherwise nanobind is linked into the extension
            dependencies.append(BACKEND)
        dependencies += LIBRARIES.get(os.environ.get("CYLLAMA_WHEEL_LABEL", ""), [])
    return {"dependencies": dependencies}


def dynamic_wheel(settings: Mapping[str, Any]) -> dict[str, bool]:  # noqa: ARG001  # a hook's signature
    """Say that the dependencies of a wheel may differ from those in the source distribution."""
    return {"dependencies": True}
