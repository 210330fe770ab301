"""The command ``playground``: the four tasks in a browser."""

from __future__ import annotations

import importlib.util
import ipaddress
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from gliclass_rerank.cli.output import Backend, Device, Model
from gliclass_rerank.errors import MissingExtraError, OptionError

APP = Path(__file__).parents[1] / "playground" / "app.py"
EVERYWHERE = ("0.0.0.0", "::")


def playground(
    model: Model = "mini",
    backend: Backend = "auto",
    device: Device = "auto",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8501,
) -> None:
    """Try the model in a browser: rerank, route, fact-check and classify. Needs the extra 'playground'.

    The page can change the model only if the host is a loopback address.
    """
    if importlib.util.find_spec("streamlit") is None:
        raise MissingExtraError("playground", "the playground")
    _check_free(host, port)
    from streamlit.web.cli import main

    options = ["--model", model, "--backend", backend, "--device", device]
    if not _is_loopback(host):
        options.append("--fixed-model")
    sys.exit(main(["run", str(APP), *_settings(host, port), "--", *options], standalone_mode=False))


def _settings(host: str, port: int) -> list[str]:
    """Streamlit options: no usage statistics, no file watcher, no browser."""
    settings = [
        ("server.address", host),
        ("server.port", str(port)),
        ("server.headless", "true"),  # else Streamlit asks for an e-mail address
        ("server.fileWatcherType", "none"),
        # Without an address, Streamlit asks an external server for this machine's IP address.
        ("browser.serverAddress", "localhost" if host in EVERYWHERE else host),
        ("browser.gatherUsageStats", "false"),
        ("client.toolbarMode", "minimal"),
        ("client.showErrorLinks", "false"),
        ("theme.primaryColor", "#3b7ddd"),
    ]
    if _is_loopback(host):  # rejects requests under other host names, which pages of other sites could send
        settings += [("server.allowedHosts", name) for name in dict.fromkeys((host, "localhost"))]
    return [f"--{name}={value}" for name, value in settings]


def _check_free(host: str, port: int) -> None:
    """Raise `OptionError` if the address is in use. Streamlit would print a traceback."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        told = error.strerror or error
        raise OptionError(
            f"--host, --port: expected an address that is free here, got {host} {port}: {told}"
        ) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
