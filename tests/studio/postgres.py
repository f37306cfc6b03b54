"""A PostgreSQL of our own: in a temporary folder, on a socket that nobody else finds."""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path


def programs():
    """The folder of initdb and pg_ctl; None where PostgreSQL is not installed."""
    found = shutil.which("pg_ctl")
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return Path(found).parent if found else next(iter(places), None)


class Cluster:
    """Runs between `start` and `stop`; `url` is its address for SQLAlchemy."""

    def __init__(self):
        # Names of sockets are short, and so is this; pytest's folders are not.
        self._home = Path(tempfile.mkdtemp(prefix="pg"))
        self._as: list[str] = []
        if os.geteuid() == 0:  # for whom PostgreSQL does not run
            names = {user.pw_name for user in pwd.getpwall()}
            user = "postgres" if "postgres" in names else "nobody"
            shutil.chown(self._home, user)
            self._as = ["runuser", "-u", user, "--"]
        self._call("initdb", "-D", self._data, "-U", "suffuse", "-A", "trust", "--no-sync")
        self.url = f"postgresql+psycopg://suffuse@/postgres?host={self._home}"

    @property
    def _data(self):
        return str(self._home / "data")

    def start(self):
        options = f"-k {self._home} -c listen_addresses='' -c fsync=off"
        log = str(self._home / "log")
        self._call("pg_ctl", "-D", self._data, "-w", "-t", "120", "-l", log, "-o", options, "start")

    def stop(self, mode="immediate"):
        """`immediate` is a crash: no connection is ended in good order."""
        self._call("pg_ctl", "-D", self._data, "-w", "-t", "120", "-m", mode, "stop")

    def remove(self):
        self.stop()
        shutil.rmtree(self._home)

    def _call(self, program, *arguments):
        command = [*self._as, str(programs() / program), *arguments]
        # Not a pipe: the server would keep it open.
        with tempfile.TemporaryFile() as said:
            status = subprocess.run(command, stdout=said, stderr=said, cwd="/").returncode
            said.seek(0)
            assert status == 0, said.read().decode()
