"""The compiled part, which depends on the Python that builds; all else is in pyproject.toml."""

import sysconfig

from setuptools import Extension, setup

# One build serves all versions of Python from 3.11 on, but those without the GIL: they have no
# limited API (python/cpython#111506).
IS_LIMITED = not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    ext_modules=[
        Extension(
            "skdisk._kernel._compiled",
            sources=["skdisk/_kernel/kernel.c", "skdisk/_kernel/module.c"],
            depends=["skdisk/_kernel/kernel.h"],
            # Sums in the order of the text, products fused where the text says so.
            extra_compile_args=[
                *("-std=c11", "-O3", "-Wall", "-Wextra", "-ffp-contract=off"),
                *("-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"),
            ],
            define_macros=[("Py_LIMITED_API", "0x030B0000")] if IS_LIMITED else [],
            py_limited_api=IS_LIMITED,
            # Where it cannot be compiled, the package is installed without it.
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if IS_LIMITED else {},
)
