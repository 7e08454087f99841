"""Serves the tabs of a home until its standard input ends: `python -m tests.ui.serve_page HOME WORKER TOKEN`."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from easyphoto.jobs.supervisor import Supervisor
from tests.ui.made import make_studio


def main(home: str, worker: str, token: str) -> None:
    from easyphoto.ui import gradio_versions, serving, tabs

    sys.executable = os.environ.get("EASYPHOTO_TEST_PYTHON") or sys.executable
    studio = make_studio(Path(home))
    serving.own_room(studio)
    page = tabs.build(studio)
    supervisor = Supervisor(studio.app.settings)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if worker == "1":
        supervisor.start()
    auth = {"auth": lambda _name, password: password == token} if token else {}
    page.launch(
        server_name="127.0.0.1", server_port=port, quiet=True, prevent_thread_lock=True,
        **auth, **gradio_versions.served(tabs.dress()),
    )  # fmt: skip
    print(f"ready http://127.0.0.1:{port}/", flush=True)
    sys.stdin.read()
    page.close()
    supervisor.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
