"""Where a Chromium is that the gallery's tests can drive; as a script, have one."""

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str | None:
    """The one that EMBEDLAB_BROWSER names, or that is on the path; none where playwright has to bring its own."""
    return os.environ.get("EMBEDLAB_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)


def main() -> None:
    """Install one where there is none: Debian's as root, else playwright's."""
    if find():
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        quietly = {"stdout": subprocess.DEVNULL, "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
        subprocess.run(["apt-get", "update", "-qq"], check=False, **quietly)
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"]
        if subprocess.run(command, check=False, **quietly).returncode == 0 and find():
            return
    done = subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=False)
    if done.returncode:
        sys.exit("The gallery's tests need a Chromium: install one, or name it in EMBEDLAB_BROWSER.")


if __name__ == "__main__":
    main()
