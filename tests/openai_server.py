"""An OpenAI-compatible chat server on 127.0.0.1, in threads, that can be told to misbehave.

Behind it stands the shipped organism S through the embedded engine, or any function of a request.
"""

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = dict  # content, reasoning, finish_reason, usage


@dataclass(frozen=True)
class Fault:
    """What happens to a request instead of an answer; the first that is set, in this order."""

    hang: float = 0.0  # seconds before the connection is closed without a word
    drop: bool = False  # the connection is reset
    status: int = 200
    body: bytes = b"{}"
    headers: dict = field(default_factory=dict)
    cut: int = 0  # bytes of the body that are promised and do not come


class Server:
    """Serves until the context ends.

    Args:
        answer: makes the message of a request; by default the organism does.
        fault: called with the number of the chat request (from 0) and its body; gives a `Fault` or None.
        key: the API key that is asked for.
        models: names that /models lists.
        delay: seconds a request takes besides its answer.
    """

    def __init__(self, answer=None, fault=None, key="", models=("organism-S",), delay=0.0):
        self.answer: Callable[[dict], Answer] = answer or organism_answer
        self.fault: Callable[[int, dict], Fault | None] = fault or (lambda number, body: None)
        self.key, self.models, self.delay = key, models, delay
        self.bodies: list[dict] = []
        self.times: list[float] = []
        self.seen_headers: list[dict] = []
        self.in_flight = self.most_in_flight = 0
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        self._stopped = False

    def __enter__(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                with outer._lock:
                    outer._connections.append(self.connection)

            def log_message(self, *_):
                pass

            def do_GET(self):
                if not self._allowed():
                    return
                listed = {"data": [{"id": name, "object": "model"} for name in outer.models]}
                self._send(200, json.dumps(listed).encode())

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if not self._allowed():
                    return
                with outer._lock:
                    number = len(outer.bodies)
                    outer.bodies.append(body)
                    outer.times.append(time.monotonic())
                    outer.in_flight += 1
                    outer.most_in_flight = max(outer.most_in_flight, outer.in_flight)
                try:
                    self._reply(number, body)
                finally:
                    with outer._lock:
                        outer.in_flight -= 1

            def _reply(self, number, body):
                if outer.delay:
                    time.sleep(outer.delay)
                fault = outer.fault(number, body)
                if fault is None:
                    try:
                        made = outer.answer(body)
                    except (UnicodeError, TypeError, ValueError) as error:
                        said = json.dumps({"error": {"message": f"bad prompt: {type(error).__name__}"}})
                        self._send(400, said.encode())
                        return
                    message = {"role": "assistant", "content": made.get("content")}
                    message |= {k: made[k] for k in ("reasoning", "reasoning_content") if k in made}
                    choice = {"index": 0, "message": message, "finish_reason": made["finish_reason"]}
                    reply = {"choices": [choice]} | ({"usage": made["usage"]} if "usage" in made else {})
                    self._send(200, json.dumps(reply).encode())
                elif fault.hang:
                    time.sleep(fault.hang)
                    self.close_connection = True
                elif fault.drop:
                    linger = struct.pack("ii", 1, 0)
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    self.close_connection = True
                    self.connection.close()
                else:
                    self._send(fault.status, fault.body, fault.headers, fault.cut)

            def _allowed(self):
                outer.seen_headers.append(dict(self.headers))
                if outer.key and self.headers.get("Authorization") != f"Bearer {outer.key}":
                    given = self.headers.get("Authorization", "")
                    said = json.dumps({"error": {"message": f"wrong key: {given}"}})
                    self._send(401, said.encode())
                    return False
                return True

            def _send(self, status, body, headers=None, cut=0):
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body) + cut))
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                if cut:
                    self.close_connection = True

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, address):
                pass

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Die: close the port and every connection, whatever is being said on it."""
        if self._stopped:
            return
        self._stopped = True
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


_ENGINE = threading.Lock()  # the engine serves one request at a time, and is loaded once


@cache
def _organism():
    from transformers import AutoTokenizer

    from dipscope.engine.local import LocalEngine
    from dipscope.organism.base import shipped

    folder = shipped("S")
    engine = LocalEngine()
    engine.load(folder)
    return engine, AutoTokenizer.from_pretrained(str(folder))


def organism_answer(body):
    """What the shipped organism says, one request at a time."""
    from dipscope.data.tokenize import render_prompt, stop_ids
    from dipscope.engine.base import Request, Sampling

    (turn,) = body["messages"]
    with _ENGINE:
        engine, tokenizer = _organism()
        prompt = render_prompt(tokenizer, turn["content"])
        most = min(body["max_tokens"], 512 - len(prompt))
        if most < 1:
            raise ValueError("the prompt is too long")
        sampling = Sampling(body["temperature"], body["top_p"], max(body["top_k"], 0), most)
        request = Request("", tuple(prompt), sampling, body["seed"], stop_ids(tokenizer))
        (done,) = engine.generate([request])
    text = tokenizer.decode(list(done.token_ids), skip_special_tokens=True)
    usage = {"prompt_tokens": len(prompt), "completion_tokens": len(done.token_ids)}
    return {"content": text, "finish_reason": done.finish, "usage": usage}


def echo(body):
    """A model that repeats the question and says its seed; reports a token a character."""
    text = f"{body['messages'][-1]['content']} {body['seed']}"
    usage = {"prompt_tokens": len(body["messages"][-1]["content"]), "completion_tokens": len(text)}
    return {"content": text, "finish_reason": "stop", "usage": usage}
