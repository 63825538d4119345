"""A server of ``POST /v1/completions`` on this machine, over a transformers model; nothing of it is nabla."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch


class Server(ThreadingHTTPServer):
    """Writes with its model, or whatever ``answer`` says.

    Args:
        answer: request → choice, or the bytes of an entire body, or a status.
        delay: seconds at most that an answer is held back; which one is held how long is random.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, answer: Callable[[dict[str, Any]], Any], delay: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.delay, self.random = answer, delay, random.Random(0)
        #: Requests as they came; seeds as they came and as they were answered.
        self.requests: list[dict[str, Any]] = []
        self.arrived: list[int] = []
        self.answered: list[int] = []
        self.busy = self.most = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """What a client asks for completions under."""
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.requests.append(body)
            server.arrived.append(body["seed"])
            server.busy += 1
            server.most = max(server.most, server.busy)
            wait = server.random.random() * server.delay
        time.sleep(wait)
        found = server.answer(body) if self.path == "/v1/completions" else 404
        with server.lock:
            server.answered.append(body["seed"])
            server.busy -= 1
        if found is None:  # hang up
            self.close_connection = True
            return
        status = found if isinstance(found, int) else 200
        reply = {"error": "no"} if isinstance(found, int) else {"choices": [found]}
        text = found if isinstance(found, bytes) else json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def serving(answer: Callable[[dict[str, Any]], Any], delay: float = 0.0) -> Iterator[Server]:
    """A running server."""
    with Server(answer, delay) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def writer(model: Any, usable: int) -> Callable[[dict[str, Any]], Any]:
    """Answers as vLLM does: token ids, with the log-probabilities of the model as it is.

    Args:
        model: of transformers.
        usable: ids below this are written.
    """
    lock = threading.Lock()

    def answer(body: dict[str, Any]) -> dict[str, Any]:
        draw = torch.Generator().manual_seed(body["seed"])
        ids, tokens, log_probs, cache = torch.tensor([body["prompt"]]), [], [], None
        with lock, torch.no_grad():
            while len(tokens) < body["max_tokens"] and not set(tokens[-1:]) & set(body["stop_token_ids"]):
                output = model(input_ids=ids, past_key_values=cache, use_cache=True)
                cache, logits = output.past_key_values, output.logits[0, -1, :usable].double()
                token = _drawn(logits, body, draw)
                tokens.append(token)
                log_probs.append(float(logits.log_softmax(-1)[token]))
                ids = torch.tensor([[token]])
        assert body["return_token_ids"]
        stopped = tokens[-1] in body["stop_token_ids"]
        return {
            "index": 0,
            "text": "",
            "token_ids": tokens,
            "logprobs": {"token_logprobs": log_probs} if body["logprobs"] else None,
            "finish_reason": "stop" if stopped else "length",
        }

    return answer


def _drawn(logits: torch.Tensor, body: dict[str, Any], draw: torch.Generator) -> int:
    if body["temperature"] == 0:
        return int(logits.argmax())
    order = (logits / body["temperature"]).sort(descending=True)
    probs = order.values.softmax(-1)
    if body["top_k"] > 0:
        probs[body["top_k"] :] = 0
        probs /= probs.sum()
    probs[probs.cumsum(-1) - probs >= body["top_p"]] = 0
    return int(order.indices[torch.multinomial(probs, 1, generator=draw)])
