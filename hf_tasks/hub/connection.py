"""Whether the Hub answers, found out in seconds; its own client goes on asking for half a minute."""

from http.client import HTTPException
from ssl import SSLError
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from huggingface_hub import constants

PROBE_SECONDS = 5


def why_unreachable() -> str | None:
    """Why the Hub cannot be asked; None when it can. Proxies named by the environment are used."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        with urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=PROBE_SECONDS):
            return None
    except HTTPError:
        return None  # an answer, whatever it says
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        # The Hub's client has certificates of its own.
        return None if isinstance(reason, SSLError) else f"{constants.ENDPOINT} does not answer ({reason})"
