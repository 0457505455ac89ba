"""Responses from OpenAI-compatible servers (`/v1/chat/completions`): vLLM, SGLang, llama.cpp, a hosted API.

This module knows what is sent and what a failure means for the person who asked; `dispatch.py` holds the
requests in flight and `reply.py` reads what comes back.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dipscope.engine.dispatch import CONNECT, Patience, Run, is_here
from dipscope.engine.reply import Trouble
from dipscope.engine.text import Ask, Draft
from dipscope.errors import DipscopeError

if TYPE_CHECKING:
    from httpx2 import Client


class ServerWriter:
    """Writes through one or several servers of the same model.

    Args:
        urls: base URLs, such as `http://127.0.0.1:8000/v1`.
        model: the model's name there; None asks `/models`.
        key_variable: environment variable that holds the API key. Without one no key is sent.
        opened: the chat template opens the thinking and the server does not report it separately, so that
            responses begin inside it.
        patience: time-outs and retries.
        seed: of the back-off's jitter.

    Raises:
        DipscopeError: a URL is none or carries a password, the key's variable is not set, or no server says
            which model it has.
    """

    endpoint = "/chat/completions"  # where requests go, below a base URL

    def __init__(
        self,
        urls: Sequence[str],
        model: str | None = None,
        *,
        key_variable: str | None = None,
        opened: bool = False,
        patience: Patience | None = None,
        seed: int = 0,
    ) -> None:
        if not urls:
            raise DipscopeError("no server is named", "teacher", "Give one as http://HOST:PORT/v1.")
        self.urls = [_checked(url) for url in urls]
        self._key = _key(key_variable)
        self._key_variable = key_variable
        self.opened, self.patience, self.seed = opened, patience or Patience(), seed
        self.model = model or self._ask_model()

    @property
    def name(self) -> str:
        """`server/` and the model's name."""
        return f"server/{self.model}"

    @property
    def facts(self) -> dict[str, Any]:
        """The model as the server names it; which weights stand behind the name only the server knows."""
        return {"kind": "server", "model": self.model, "prefilled": self.opened}

    def write(self, asks: Iterable[Ask]) -> Iterator[Draft]:
        """Yield a draft for every ask as responses arrive. Dropping the iterator cancels what is in flight.

        Raises:
            DipscopeError: the key or the model is refused, the first requests are all refused, or (a fault)
                no server answers any more.
        """
        run = Run(self, asks)
        thread = threading.Thread(target=run.main, name="teacher", daemon=True)
        thread.start()
        try:
            while (item := run.out.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            run.cancel()
            thread.join()

    def plain(self) -> PlainServer:
        """The same servers and model, continuing prompts as plain text."""
        return PlainServer(
            self.urls,
            self.model,
            key_variable=self._key_variable,
            opened=self.opened,
            patience=self.patience,
            seed=self.seed,
        )

    def body(self, ask: Ask) -> bytes:
        """The request as JSON. Every sampling parameter is explicit, so that no server default applies."""
        drawn = ask.sampling
        request = {
            "model": self.model,
            "messages": [{"role": role, "content": content} for role, content in ask.messages],
            "temperature": drawn.temperature,
            "top_p": drawn.top_p,
            "top_k": drawn.top_k or -1,  # -1 is off wherever the field is known
            "min_p": drawn.min_p,
            "max_tokens": drawn.max_tokens,
            "seed": ask.seed,
            "n": 1,
            "stream": False,
        }
        return json.dumps(request).encode("ascii")  # escapes, so that lone surrogates reach the server too

    def headers(self) -> dict[str, str]:
        """Of every request; the key appears nowhere else."""
        made = {"Content-Type": "application/json", "Accept": "application/json"}
        return made | ({"Authorization": f"Bearer {self._key}"} if self._key else {})

    def failure(self, trouble: Trouble, url: str) -> DipscopeError:
        """The one line for a trouble that every prompt would meet."""
        reason = self.without_key(trouble.reason)
        if trouble.status in (401, 403):
            held = f"the key in {self._key_variable}" if self._key_variable else "a request without a key"
            fix = "Name the environment variable that holds the right key (--key-env)."
            return DipscopeError(f"the server does not accept {held} ({trouble.status})", url, fix)
        if trouble.status == 404:
            what = f"the server has no model '{self.model}' or no chat endpoint here ({reason})"
            fix = "Check the model's name (--model) and that the address ends in /v1."
            return DipscopeError(what, url, fix)
        if trouble.kind in ("refused", "fatal"):
            return DipscopeError(reason, url, "Check the address, the model and the sampling options.")
        fix = "Start it or check the address; then run again: what is there is kept."
        return DipscopeError(f"no server answers any more ({reason})", url, fix, fault=True)

    def without_key(self, text: str) -> str:
        """The text with the key blotted out, should a server have echoed it."""
        return text.replace(self._key, "***") if self._key else text

    def _ask_model(self) -> str:
        from httpx2 import Client, HTTPError

        said = "no model"
        for url in self.urls:
            try:
                with Client(timeout=CONNECT, trust_env=not is_here(url)) as client:
                    names = self._models(client, url)
            except HTTPError as error:
                said = type(error).__name__
                continue
            if len(names) == 1:
                return names[0]
            if names:
                shown = ", ".join(names[:8])
                raise DipscopeError(f"the server has several models ({shown})", url, "Name one with --model.")
        raise DipscopeError(
            f"no server says which model it has ({said})",
            ", ".join(self.urls),
            "Start it or check the address; name the model with --model where /models is not offered.",
        )

    def _models(self, client: Client, url: str) -> list[str]:
        got = client.get(f"{url}/models", headers=self.headers())
        if got.status_code in (401, 403):
            raise self.failure(Trouble("fatal", "", got.status_code), url)
        try:
            return [str(entry["id"]) for entry in got.json()["data"]]
        except (ValueError, KeyError, TypeError):
            return []


class PlainServer(ServerWriter):
    """Continues prompts as plain text, through `/v1/completions`: for models that know no chat."""

    endpoint = "/completions"

    def body(self, ask: Ask) -> bytes:
        """The request as JSON, with the one turn as the text that is continued."""
        ((_, prompt),) = ask.messages
        request = json.loads(super().body(ask))
        del request["messages"]
        return json.dumps({**request, "prompt": prompt}).encode("ascii")


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DipscopeError("this is no address of a server", url, "Give it as http://HOST:PORT/v1.")
    if parts.username or parts.password or parts.query:
        fix = "Put the key into an environment variable and name that (--key-env)."
        raise DipscopeError("an address must not carry a password or a query", parts.hostname, fix)
    return url.rstrip("/").removesuffix("/chat/completions")


def _key(variable: str | None) -> str:
    if variable is None:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise DipscopeError("the environment variable is not set", variable, "Put the API key into it.")
    if not (key.isascii() and key.isprintable()):
        raise DipscopeError("the key has characters that no header can carry", variable, "Set it again.")
    return key
