"""Checks that this Python can be embedded in Rust programs, and installs what is missing where that is possible."""

import os
import shutil
import subprocess
import sys
import sysconfig


def library() -> str | None:
    """The shared library of this interpreter, if the linker can find it."""
    names = [sysconfig.get_config_var("LDLIBRARY"), sysconfig.get_config_var("INSTSONAME")]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    names.append(f"libpython{version}.so")
    for folder in (sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("LIBPL")):
        for name in names:
            shared = folder and name and (".so" in name or name.endswith(".dylib"))
            if shared and os.path.exists(os.path.join(folder, name)):
                return os.path.join(folder, name)
    return None


def missing_modules() -> list[str]:
    """What a virtual environment needs of the standard library and distributions may leave out."""
    missing = []
    for module in ("venv", "ensurepip"):
        try:
            __import__(module)
        except ImportError:
            missing.append(module)
    return missing


def main() -> None:
    """Install the library with Debian's packages, or say what to do."""
    if sys.version_info < (3, 10):  # noqa: UP036 (this is where older ones are told)
        sys.exit(f"Couatl needs Python 3.10 or newer; this is {sys.version.split()[0]}. Set PYTHON=… for make.")
    if library() and not missing_modules():
        return
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    packages = [f"libpython{version}-dev", f"python{version}-venv"]
    can_install = shutil.which("apt-get") and os.geteuid() == 0 and sys.prefix == "/usr"
    if can_install:
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(["apt-get", "install", "-y", "-qq", *packages], check=True)
    if not library() or (missing_modules() and not can_install):
        sys.exit(
            f"Couatl's Rust tests embed Python {version} and need its shared library. Install it (on Debian: "
            f"{' '.join(packages)}), or set PYTHON=… for make to an interpreter built with --enable-shared."
        )


if __name__ == "__main__":
    main()
