"""What both applications share: a small web server over a SQLite database. Python's standard library only."""

import html
import json
import socket
import sqlite3
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

MAX_BODY_BYTES = 64 * 1024
INSTANCE = socket.gethostname()

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;margin:0;background:#f4f5f7;color:#1c2430}
header{background:#23395b;color:#fff;padding:1.2rem 2rem}header h1{margin:0;font-size:1.4rem}
header p{margin:.2rem 0 0;opacity:.8}main{max-width:56rem;margin:1.5rem auto;padding:0 1rem}
section{background:#fff;border-radius:8px;padding:1rem 1.4rem;margin-bottom:1rem;box-shadow:0 1px 3px #0002}
h2{margin:0 0 .4rem;font-size:1.1rem}table{border-collapse:collapse;width:100%}
td,th{text-align:left;padding:.35rem .5rem;border-bottom:1px solid #e3e6ea}
form{display:flex;gap:.5rem;margin-top:.6rem;flex-wrap:wrap}input,button{font:inherit;padding:.3rem .6rem}
button{background:#23395b;color:#fff;border:0;border-radius:4px;cursor:pointer}
.problem{background:#fdecea;border-left:4px solid #c0392b;padding:.5rem 1rem}footer{text-align:center;color:#667}
"""


class Problem(Exception):
    """A request that cannot be served: an HTTP status and a sentence for the person."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Database:
    """One SQLite file; a connection a thread. Every acknowledged change is on disk."""

    def __init__(self, path, schema, rows):
        self.path = path
        self.local = threading.local()
        with self.connection() as db:
            db.executescript(schema)
            for statement, values in rows:
                db.execute(statement, values)

    def connection(self):
        if not hasattr(self.local, "db"):
            db = sqlite3.connect(self.path, timeout=10, isolation_level=None)
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("PRAGMA foreign_keys=ON")
            self.local.db = db
        return self.local.db

    def rows(self, sql, *values):
        return [dict(row) for row in self.connection().execute(sql, values)]

    def transaction(self, change):
        """Runs change(db) alone: what it reads stays true until it is committed. An exception undoes it."""
        db = self.connection()
        db.execute("BEGIN IMMEDIATE")
        try:
            result = change(db)
            db.execute("COMMIT")
            return result
        except BaseException:
            db.execute("ROLLBACK")
            raise


def text_field(form, name, limit=100):
    """A required text of the request. Raises Problem when it is missing, not text or too long."""
    value = form.get(name)
    if not isinstance(value, str) or not value.strip():
        raise Problem(400, f"{name} is required")
    value = " ".join(value.split())
    if len(value) > limit:
        raise Problem(400, f"{name} has more than {limit} characters")
    return value


def number_field(form, name, low, high):
    """A required whole number of the request, from low to high."""
    try:
        value = int(str(form.get(name, "")), 10)
    except ValueError:
        raise Problem(400, f"{name} must be a whole number") from None
    if not low <= value <= high:
        raise Problem(400, f"{name} must be from {low} to {high}")
    return value


def escape(value):
    return html.escape(str(value), quote=True)


def page(title, body):
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        f"<header><h1>{escape(title)}</h1><p>answered by <strong>{escape(INSTANCE)}</strong></p></header>"
        f"<main>{body}</main><footer>Campus, an example of Strata</footer></html>"
    )


def serve(title, port, routes):
    """
    routes: {(method, path): function}. A function of a GET takes nothing; one of a POST takes the form (a dictionary,
    from JSON or a form). A text is a page, anything else JSON; None after a POST leads back to the first page.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = 30
        server_version = "campus"
        sys_version = ""

        def do_GET(self):
            self.answer("GET")

        def do_POST(self):
            self.answer("POST")

        def answer(self, method):
            path = self.path.split("?", 1)[0]
            wants_json = path.startswith("/api/")
            try:
                form = (self.form(),) if method == "POST" else ()
                route = routes.get((method, path))
                if route is None:
                    raise Problem(404, f"there is nothing at {path}")
                result = route(*form)
                if result is None:
                    self.send(303, "text/plain", "", {"Location": "/"})
                elif isinstance(result, str):
                    self.send(200, "text/html; charset=utf-8", result)
                else:
                    status = 201 if method == "POST" else 200
                    self.send(status, "application/json", json.dumps(result))
            except Problem as problem:
                self.fail(problem.status, str(problem), wants_json)
            except sqlite3.Error as error:
                print(f"{method} {path}: {error}", file=sys.stderr, flush=True)
                self.fail(503, "the database does not answer at the moment", wants_json)

        def form(self):
            try:
                length = int(self.headers.get("Content-Length", "0"))
            except ValueError:
                raise Problem(400, "Content-Length is no number") from None
            if not 0 <= length <= MAX_BODY_BYTES:
                self.close_connection = True
                raise Problem(413, f"a request has at most {MAX_BODY_BYTES} bytes")
            body = self.rfile.read(length)
            try:
                if self.headers.get_content_type() == "application/json":
                    form = json.loads(body)
                else:
                    fields = parse_qs(body.decode(), max_num_fields=50)
                    form = {name: values[0] for name, values in fields.items()}
            except (ValueError, RecursionError):
                raise Problem(400, "the request is neither a form nor JSON") from None
            if not isinstance(form, dict):
                raise Problem(400, "the request must be a JSON object")
            return form

        def fail(self, status, message, wants_json):
            if wants_json:
                self.send(status, "application/json", json.dumps({"error": message}))
            else:
                body = f'<p class="problem">{escape(message)}</p><p><a href="/">back</a></p>'
                self.send(status, "text/html; charset=utf-8", page(title, body))

        def send(self, status, kind, text, headers=None):
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("X-Instance", INSTANCE)
            self.send_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'")
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format, *args):
            pass  # the service manager's journal is for errors

    routes[("GET", "/healthz")] = lambda: {"status": "ok", "instance": INSTANCE}
    server = ThreadingHTTPServer(("0.0.0.0", port), Handler)
    server.daemon_threads = True
    print(f"{title} on port {port}", flush=True)
    server.serve_forever()
