"""Stands for W&B's server, which cannot be had here: it answers what W&B asks of one run, and keeps what it sends."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class WandbServer:
    """Holds what has arrived of the one run."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.exit_code: int | None = None
        self.url = ""

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answers a question in GraphQL."""
        named = {"id": "x", "name": "x"}
        run = named | {
            "displayName": "x", "config": "{}", "summaryMetrics": "{}", "tags": [], "notes": "", "sweepName": "",
            "project": named | {"entity": named}, "historyLineCount": len(self.rows),
            "historyTail": json.dumps([json.dumps(self.rows[-1])] if self.rows else []),
            "eventsLineCount": 0, "eventsTail": "[]", "logLineCount": 0, "wandbConfig": '{"t": {}}',
        }  # fmt: skip
        match request.get("operationName"):
            case "RunResumeStatus":
                return {"model": named | {"entity": named, "bucket": run if self.rows else None}}
            case "UpsertBucket":
                return {"upsertBucket": {"bucket": run, "inserted": not self.rows}}
            case "CreateRunFiles":
                files = [
                    {"name": name, "uploadUrl": f"{self.url}/{name}"}
                    for name in request["variables"]["files"]
                ]
                return {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": files}}
        return {}

    def keep(self, stream: dict[str, Any]) -> None:
        """Keeps rows at their number, as W&B's server does, and how the run ended."""
        if history := stream.get("files", {}).get("wandb-history.jsonl"):
            rows = [json.loads(line) for line in history["content"]]
            self.rows[history["offset"] : history["offset"] + len(rows)] = rows
        if stream.get("complete"):
            self.exit_code = stream["exitcode"]


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """Serves on a free port of this machine."""
    kept = WandbServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer: dict[str, Any] = {}
            if self.path == "/graphql":
                answer = {"data": kept.answer(json.loads(sent))}
            elif self.path.endswith("/file_stream"):
                kept.keep(json.loads(sent))
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_PUT = do_GET = do_POST

        def log_message(self, *arguments: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        kept.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield kept
        server.shutdown()
