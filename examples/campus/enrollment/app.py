"""Student enrollment: courses with a number of seats, and who has one.

    GET    /                      the courses, with forms
    GET    /api/courses           all courses, with seats and how many are taken
    GET    /api/courses/ID        one course, with its students
    POST   /api/enrollments       {"course": ID, "student": NAME}: takes a seat
    DELETE /api/enrollments/ID    gives it back
    GET    /healthz
"""

import os
import sqlite3
import sys

# In the repository, webapp.py is one directory up; on a server it is beside this file.
sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from webapp import (  # noqa: E402
    Database,
    Refused,
    Response,
    data_file,
    escape,
    number_field,
    page,
    redirect,
    send_json,
    serve,
    text_field,
)

APPLICATION = "Student enrollment"

SCHEMA = """
CREATE TABLE IF NOT EXISTS courses (id INTEGER PRIMARY KEY, code TEXT NOT NULL UNIQUE, title TEXT NOT NULL,
  seats INTEGER NOT NULL CHECK (seats > 0));
CREATE TABLE IF NOT EXISTS enrollments (id INTEGER PRIMARY KEY, course INTEGER NOT NULL REFERENCES courses (id),
  student TEXT NOT NULL COLLATE NOCASE, UNIQUE (course, student));
"""

COURSES = [
    ("CS-101", "Introduction to programming", 30),
    ("CS-240", "Operating systems", 24),
    ("CS-315", "Virtualization and cloud computing", 20),
    ("MA-110", "Linear algebra", 40),
    ("PH-120", "Mechanics laboratory", 2),
]

COURSE_LIST = """
SELECT courses.id, code, title, seats, count(enrollments.id) AS enrolled
FROM courses LEFT JOIN enrollments ON enrollments.course = courses.id
"""


def seed(db):
    if db.execute("SELECT count(*) FROM courses").fetchone()[0] == 0:
        db.executemany("INSERT INTO courses (code, title, seats) VALUES (?, ?, ?)", COURSES)


database = None


def all_courses():
    return database.rows(COURSE_LIST + "GROUP BY courses.id ORDER BY code")


def require_course(course):
    found = database.rows(COURSE_LIST + "WHERE courses.id = ? GROUP BY courses.id", course)
    if not found:
        raise Refused(404, f"there is no course {course}")
    return found[0]


def students_of(course):
    return database.rows("SELECT id, student FROM enrollments WHERE course = ? ORDER BY student", course)


def enroll(fields):
    """Counts and inserts in one transaction: the last seat is given to one student only."""
    course = number_field(fields, "course", 1, 10**9)
    student = text_field(fields, "student", 80)
    with database.transaction() as db:
        row = db.execute("SELECT seats, code FROM courses WHERE id = ?", (course,)).fetchone()
        if row is None:
            raise Refused(404, f"there is no course {course}")
        taken = db.execute("SELECT count(*) FROM enrollments WHERE course = ?", (course,)).fetchone()[0]
        if taken >= row["seats"]:
            raise Refused(409, f"{row['code']} is full")
        try:
            made = db.execute("INSERT INTO enrollments (course, student) VALUES (?, ?)", (course, student))
        except sqlite3.IntegrityError:
            raise Refused(409, f"{student} has a seat in {row['code']} already") from None
        return {"id": made.lastrowid, "course": course, "student": student}


def withdraw(enrollment):
    with database.transaction() as db:
        if db.execute("DELETE FROM enrollments WHERE id = ?", (enrollment,)).rowcount == 0:
            raise Refused(404, f"there is no enrollment {enrollment}")


def home(_request):
    return page(APPLICATION, "Courses", "".join(course_card(course) for course in all_courses()))


def course_card(course):
    free = course["seats"] - course["enrolled"]
    rows = "".join(
        f"""<tr><td>{escape(row["student"])}</td><td><form method="post" action="/withdraw">
<input type="hidden" name="enrollment" value="{row["id"]}"><button class="plain">Withdraw</button></form></td></tr>"""
        for row in students_of(course["id"])
    )
    students = f"<table><tr><th>Student</th><th></th></tr>{rows}</table>" if rows else ""
    form = f"""<form method="post" action="/enroll"><input type="hidden" name="course" value="{course["id"]}">
<input name="student" placeholder="Name of the student" maxlength="80" required><button>Enroll</button></form>"""
    return f"""<section class="card"><div class="row"><h2>{escape(course["code"])} {escape(course["title"])}</h2>
<span class="{"good" if free else "bad"}">{free} of {course["seats"]} seats free</span></div>
{students}{form if free else ""}</section>"""


def enroll_form(request):
    enroll(request.fields())
    return redirect("/")


def withdraw_form(request):
    withdraw(number_field(request.fields(), "enrollment", 1, 10**9))
    return redirect("/")


def withdraw_call(_request, enrollment):
    withdraw(enrollment)
    return Response(204, "", "application/json")


ROUTES = [
    ("GET", "/", home),
    ("POST", "/enroll", enroll_form),
    ("POST", "/withdraw", withdraw_form),
    ("GET", "/api/courses", lambda _request: send_json(all_courses())),
    (
        "GET",
        r"/api/courses/([0-9]{1,9})",
        lambda _request, course: send_json({**require_course(course), "students": students_of(course)}),
    ),
    ("POST", "/api/enrollments", lambda request: send_json(enroll(request.fields()), 201)),
    ("DELETE", r"/api/enrollments/([0-9]{1,9})", withdraw_call),
]

if __name__ == "__main__":
    database = Database(data_file("enrollment.db"), SCHEMA, seed)
    serve(APPLICATION, ROUTES, int(os.environ.get("PORT", "8080")))
