"""What both applications of the campus share: an HTTP server with routes, pages and JSON, on Python's standard library.

A route is a function that takes a Request and returns a Response. Whatever a client sends is checked before it is
used: bodies are bounded, HTML is escaped, and SQL takes values as parameters only.
"""

import html
import json
import os
import re
import signal
import socket
import sqlite3
import threading
import urllib.parse
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MAX_BODY_BYTES = 64 * 1024
INSTANCE = socket.gethostname()

STYLE = """
:root { color-scheme: light dark; --ink: #1b2733; --soft: #5b6b7b; --line: #d8dfe6; --card: #fff; --paper: #f4f6f8;
  --accent: #0b6bcb; --good: #1a7f37; --bad: #b42318; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9aa7b4; --line: #30363d; --card: #161b22;
  --paper: #0d1117; --accent: #58a6ff; --good: #3fb950; --bad: #ff7b72; } }
* { box-sizing: border-box }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper) }
header, main, footer { max-width: 60rem; margin: 0 auto; padding: 1rem 1.25rem }
header { display: flex; align-items: baseline; justify-content: space-between; gap: 1rem }
h1 { margin: .5rem 0; font-size: 1.6rem } h1 a { color: inherit; text-decoration: none }
h2 { margin: 0 0 .25rem; font-size: 1.15rem }
a { color: var(--accent) } .soft, footer { color: var(--soft); font-size: .9rem }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1rem 1.25rem; margin: 0 0 1rem }
.row { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; justify-content: space-between }
form { display: inline-flex; flex-wrap: wrap; gap: .5rem; margin: .5rem 0 0 } td form { margin: 0 }
input, textarea, button { font: inherit; padding: .35rem .6rem; border: 1px solid var(--line); border-radius: .4rem;
  background: var(--card); color: var(--ink) }
textarea { width: 100%; min-height: 6rem }
button { background: var(--accent); border-color: var(--accent); color: #fff; cursor: pointer }
button.plain { background: none; color: var(--bad); border-color: var(--line) }
table { width: 100%; border-collapse: collapse; margin: .5rem 0 0 } th, td { text-align: left; padding: .35rem .5rem .35rem 0;
  border-top: 1px solid var(--line); vertical-align: top } th { color: var(--soft); font-weight: 600; font-size: .85rem }
.good { color: var(--good) } .bad { color: var(--bad) } .notice { border-color: var(--bad) }
code { background: var(--paper); padding: .1rem .35rem; border-radius: .3rem }
"""


class Refused(Exception):
    """A request that cannot be done, with the status and a sentence for whoever asked."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status
        self.message = message


class Response:
    def __init__(self, status, body, content_type, headers=()):
        self.status = status
        self.body = body.encode()
        self.content_type = content_type
        self.headers = headers


def send_json(value, status=200):
    return Response(status, json.dumps(value, indent=2) + "\n", "application/json")


def redirect(path):
    return Response(303, "", "text/plain; charset=utf-8", [("Location", path)])


def escape(value):
    return html.escape(str(value), quote=True)


def page(application, title, content, status=200):
    body = f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)} · {escape(application)}</title><style>{STYLE}</style></head><body>
<header><h1><a href="/">{escape(application)}</a></h1>
<span class="soft">answered by <code>{escape(INSTANCE)}</code></span></header>
<main>{content}</main>
<footer>Served by the instance {escape(INSTANCE)}. Its database is its own.</footer></body></html>"""
    return Response(status, body, "text/html; charset=utf-8")


class Request:
    def __init__(self, method, path, query, headers, body):
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body = body

    @property
    def is_form(self):
        return self.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")

    def fields(self):
        """The fields of a form or of a JSON object."""
        try:
            text = self.body.decode()
            if self.is_form and not text.lstrip().startswith("{"):
                return {key: values[-1] for key, values in urllib.parse.parse_qs(text, strict_parsing=bool(text)).items()}
            value = json.loads(text)
        except ValueError:
            raise Refused(400, "the body is neither JSON nor a form") from None
        if not isinstance(value, dict):
            raise Refused(400, "the body must be a JSON object")
        return value


def text_field(fields, name, longest):
    value = fields.get(name)
    if not isinstance(value, str) or not value.strip():
        raise Refused(400, f"{name} is missing")
    value = value.strip()
    if len(value) > longest or any(ord(char) < 32 and char not in "\r\n\t" for char in value):
        raise Refused(400, f"{name} must be plain text of at most {longest} characters")
    return value


def number_field(fields, name, lowest, highest):
    value = fields.get(name)
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise Refused(400, f"{name} must be a whole number from {lowest} to {highest}")
    return value


class Database:
    """An SQLite file. Each request opens it anew, so that threads share nothing."""

    def __init__(self, path, schema, seed):
        self.path = path
        with self.transaction() as db:
            db.executescript("PRAGMA journal_mode = WAL;" + schema)
        with self.transaction() as db:
            seed(db)

    @contextmanager
    def transaction(self):
        """All or nothing; takes the write lock at once, so that what was read still holds when it is written."""
        db = sqlite3.connect(self.path, timeout=10, isolation_level=None)
        db.row_factory = sqlite3.Row
        try:
            db.execute("PRAGMA foreign_keys = ON")
            db.execute("BEGIN IMMEDIATE")
            yield db
            if db.in_transaction:
                db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        finally:
            db.close()

    def rows(self, query, *values):
        db = sqlite3.connect(self.path, timeout=10)
        db.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in db.execute(query, values)]
        finally:
            db.close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "campus"
    sys_version = ""
    timeout = 20
    application = ""
    routes = ()

    def do_GET(self):
        self.answer()

    do_POST = do_DELETE = do_HEAD = do_GET

    def answer(self):
        try:
            response = self.dispatch()
        except Refused as refused:
            response = self.refusal(refused.status, refused.message)
        except sqlite3.OperationalError as error:
            self.log_error("database: %s", error)
            response = self.refusal(503, "the database is busy; try again")
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'")
        for name, value in response.headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    def dispatch(self):
        url = urllib.parse.urlsplit(self.path)
        body = self.read_body()
        method = "GET" if self.command == "HEAD" else self.command
        request = Request(method, url.path, urllib.parse.parse_qs(url.query), self.headers, body)
        self.refuse_other_sites(request)
        known = False
        for route_method, pattern, function in self.routes:
            match = re.fullmatch(pattern, url.path)
            if match and route_method == method:
                return function(request, *[int(group) for group in match.groups()])
            known = known or bool(match)
        raise Refused(405, "this does not work here") if known else Refused(404, "there is nothing here")

    def read_body(self):
        length = self.headers.get("content-length", "0")
        if self.headers.get("transfer-encoding") or not length.isdigit() or int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            raise Refused(413, f"a body may have at most {MAX_BODY_BYTES} bytes and must say its length")
        return self.rfile.read(int(length))

    def refuse_other_sites(self, request):
        """A form on another site must not act in the name of whoever looks at it."""
        if request.method != "GET" and self.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise Refused(403, "this was asked by another site")

    def refusal(self, status, message):
        if self.path.startswith("/api/"):
            return send_json({"error": message}, status)
        content = f'<div class="card notice"><h2>That did not work</h2><p>{escape(message)}</p><a href="/">Back</a></div>'
        return page(self.application, "Sorry", content, status)

    def log_request(self, code="-", size="-"):
        if self.path != "/healthz":
            super().log_request(code, size)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def serve(application, routes, port):
    """Answers until the process is asked to end."""
    health = ("GET", "/healthz", lambda request: send_json({"status": "ok", "instance": INSTANCE}))
    handler = type("CampusHandler", (Handler,), {"application": application, "routes": [health, *routes]})
    server = Server((os.environ.get("LISTEN_ADDRESS", "0.0.0.0"), port), handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"{application} on port {server.server_address[1]}", flush=True)
    server.serve_forever()


def data_file(name):
    """In the directory that systemd keeps for the service, or here."""
    directory = os.environ.get("STATE_DIRECTORY", ".")
    os.makedirs(directory, exist_ok=True)
    return os.path.join(directory, name)
