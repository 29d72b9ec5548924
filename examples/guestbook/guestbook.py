"""A guest book: POST a line to add it, GET the page or /entries to read all. Entries are rows of an SQLite database."""
import argparse
import json
import os
import signal
import sqlite3
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

parser = argparse.ArgumentParser()
parser.add_argument("--database", required=True)
database = parser.parse_args().database

MAX_BYTES = 4096


def connect():
    connection = sqlite3.connect(database, timeout=10)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
    return connection


def entries():
    with connect() as connection:
        return [{"id": row[0], "text": row[1]} for row in connection.execute("SELECT id, text FROM entries ORDER BY id")]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/entries":
            self.answer(200, entries())
        elif self.path == "/about":
            # What the image says about its application, as it arrived here
            self.answer(200, {
                "title": os.environ.get("TITLE"),
                "directory": os.getcwd(),
                "user": [os.getuid(), os.getgid()],
                "arguments": sys.argv[1:],
                "home": os.environ.get("HOME"),
            })
        else:
            self.answer(404, {"error": "there are /entries and /about"})

    def do_POST(self):
        size = int(self.headers.get("content-length", 0))
        if not 0 < size <= MAX_BYTES:
            self.answer(400, {"error": f"an entry has 1 to {MAX_BYTES} bytes"})
            return
        text = self.rfile.read(size).decode("utf-8", "replace")
        with connect() as connection:
            number = connection.execute("INSERT INTO entries (text) VALUES (?)", (text,)).lastrowid
        self.answer(201, {"id": number})

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
server = ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler)
print(f"serving on port {server.server_port}", flush=True)
server.serve_forever()
