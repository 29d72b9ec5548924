#!/usr/bin/env python3
"""Student enrollment: courses with a number of seats; a student takes a seat or gives it back. Never overbooked.

usage: enrollment.py PORT DATABASE
"""

import sqlite3
import sys

from web import Database, Problem, escape, number_field, page, serve, text_field

SCHEMA = """
CREATE TABLE IF NOT EXISTS courses (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, seats INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS enrollments (
  course INTEGER NOT NULL REFERENCES courses(id), student TEXT NOT NULL, PRIMARY KEY (course, student));
"""
COURSES = [("Operating Systems", 30), ("Linear Algebra", 40), ("Databases", 25), ("Compilers", 2)]
TITLE = "Student enrollment"


class Enrollment:
    def __init__(self, path):
        rows = [("INSERT OR IGNORE INTO courses (name, seats) VALUES (?, ?)", course) for course in COURSES]
        self.database = Database(path, SCHEMA, rows)

    def courses(self):
        return self.database.rows(
            "SELECT id, name, seats, (SELECT count(*) FROM enrollments WHERE course = id) AS enrolled FROM courses ORDER BY id"
        )

    def enroll(self, form):
        course = number_field(form, "course", 1, 10**9)
        student = text_field(form, "student")

        def change(db):
            found = db.execute("SELECT name, seats FROM courses WHERE id = ?", (course,)).fetchone()
            if found is None:
                raise Problem(404, f"there is no course {course}")
            taken = db.execute("SELECT count(*) FROM enrollments WHERE course = ?", (course,)).fetchone()[0]
            if taken >= found["seats"]:
                raise Problem(409, f"{found['name']} is full")
            try:
                db.execute("INSERT INTO enrollments VALUES (?, ?)", (course, student))
            except sqlite3.IntegrityError:
                raise Problem(409, f"{student} is enrolled in {found['name']} already") from None
            return {"course": course, "student": student}

        return self.database.transaction(change)

    def withdraw(self, form):
        course = number_field(form, "course", 1, 10**9)
        student = text_field(form, "student")

        def change(db):
            cursor = db.execute("DELETE FROM enrollments WHERE course = ? AND student = ?", (course, student))
            if cursor.rowcount == 0:
                raise Problem(404, f"{student} is not enrolled in course {course}")
            return {"course": course, "student": student}

        return self.database.transaction(change)

    def students(self, course):
        return self.database.rows("SELECT student FROM enrollments WHERE course = ? ORDER BY student", course)

    def page(self):
        sections = []
        for course in self.courses():
            students = ", ".join(escape(row["student"]) for row in self.students(course["id"])) or "nobody yet"
            sections.append(
                f"<section><h2>{escape(course['name'])}</h2>"
                f"<p>{course['enrolled']} of {course['seats']} seats taken: {students}</p>"
                f'<form method="post" action="/enroll"><input type="hidden" name="course" value="{course["id"]}">'
                '<input name="student" placeholder="Name" maxlength="100" required>'
                '<button>Enroll</button><button formaction="/withdraw">Withdraw</button></form></section>'
            )
        return page(TITLE, "".join(sections))


def main():
    if len(sys.argv) != 3 or not sys.argv[1].isdecimal():
        sys.exit(__doc__)
    app = Enrollment(sys.argv[2])
    serve(
        TITLE,
        int(sys.argv[1]),
        {
            ("GET", "/"): app.page,
            ("GET", "/api/courses"): app.courses,
            ("POST", "/api/enrollments"): app.enroll,
            ("POST", "/api/withdrawals"): app.withdraw,
            ("POST", "/enroll"): lambda form: app.enroll(form) and None,
            ("POST", "/withdraw"): lambda form: app.withdraw(form) and None,
        },
    )


main()
