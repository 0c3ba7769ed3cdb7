"""The images that our Dockerfiles begin with, made of this machine's own programs where they cannot be pulled.

    python -m tests.support.base_images     makes what is missing, prints what there is

An image that is there under the name is left alone, unless it is one of ours and its inputs have changed. Ours are for
tests: nobody should ship them.
"""

import sys
import sysconfig
from pathlib import Path
from typing import Final

from runtara.runner.images.docker_engine import DockerEngine

from .rootfs import LOCAL_LIBRARIES, RootFs
from .turns import turn

PYTHON: Final = f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"
_INPUTS: Final = "dev.runtara.test-inputs"
_VERSION: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
_LEFT_OUT: Final = (
    "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "site-packages", "dist-packages",
    "pydoc_data", "__pycache__", f"libpython{_VERSION}.a",
)  # fmt: skip
_TOOLS: Final = (
    "sh", "cat", "chmod", "chown", "cp", "dd", "df", "echo", "env", "false", "grep", "head", "id", "kill", "ln", "ls",
    "mkdir", "mktemp", "mv", "ps", "rm", "sed", "sleep", "stat", "tail", "touch", "true", "wc", "yes",
)  # fmt: skip


def python_rootfs() -> RootFs:
    """This interpreter, its standard library, pip, a shell and what a shell script needs."""
    root = RootFs()
    library = Path(sysconfig.get_path("stdlib"))
    target = f"/usr/local/lib/python{_VERSION}"
    graphical = [path.name for path in (library / "lib-dynload").glob("_tkinter*")]
    root.tree(library, target, without=(*_LEFT_OUT, *graphical))
    binary = Path(sys.base_prefix, "bin", f"python{_VERSION}")
    root.program(binary, f"/usr/local/bin/python{_VERSION}")
    for name in ("python", "python3"):
        root.link(f"/usr/local/bin/{name}", f"python{_VERSION}")
    root.libraries_of(*(path for path in (library / "lib-dynload").glob("*.so") if path.name not in graphical))
    site = Path(sysconfig.get_path("purelib"))
    for folder in [site / "pip", *site.glob("pip-*.dist-info")]:
        root.tree(folder, f"{target}/site-packages/{folder.name}", without=("__pycache__",))
    root.tools(*_TOOLS)
    for path in _often_wanted():
        root.program(path, str(path))
    return root


def _often_wanted() -> list[Path]:
    """Libraries that extension modules load, and that the interpreter itself may not."""
    names = ("libstdc++.so.6", "libgcc_s.so.1", "libpthread.so.0", "librt.so.1", "libdl.so.2", "libutil.so.1")
    return [path for name in names for path in Path("/usr/lib").glob(f"*-linux-gnu/{name}")]


def ensure(engine: DockerEngine, name: str, root: RootFs, config: list[str]) -> str:
    """The image's id. `config` is in the words of a Dockerfile."""
    digest = root.digest(*config)
    with turn("base-images"):
        found = engine.inspect(name)
        if found is not None and found.labels.get(_INPUTS, digest) == digest:
            return found.id
        return engine.import_rootfs(root.tar(), name, [*config, f"LABEL {_INPUTS}={digest}"])


def ensure_python(engine: DockerEngine) -> str:
    root = python_rootfs()
    path = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
    config = [f"ENV PATH={path}", "ENV LANG=C.UTF-8", f"ENV PYTHON_VERSION={sys.version.split()[0]}", 'CMD ["python3"]']
    if root.has_local_libraries:
        config.append(f"ENV LD_LIBRARY_PATH={LOCAL_LIBRARIES}")
    return ensure(engine, PYTHON, root, config)


def main() -> None:
    with DockerEngine.connect() as engine:
        sys.stdout.write(f"{PYTHON} {ensure_python(engine)}\n")


if __name__ == "__main__":
    main()
