"""Learning management system: courses with assignments, what students hand in, and the points they get for it.

    GET    /                        the courses and their assignments
    GET    /assignments/ID          one assignment, what was handed in, with forms
    GET    /api/courses             all courses with their assignments
    GET    /api/assignments/ID      one assignment with its submissions
    POST   /api/submissions         {"assignment": ID, "student": NAME, "text": TEXT}: hands in, or hands in again
    POST   /api/grades              {"submission": ID, "points": NUMBER}: grades
    GET    /api/grades              the sum of points of each student in each course
    GET    /healthz
"""

import os
import sys

# In the repository, webapp.py is one directory up; on a server it is beside this file.
sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from webapp import (  # noqa: E402
    Database,
    Refused,
    data_file,
    escape,
    number_field,
    page,
    redirect,
    send_json,
    serve,
    text_field,
)

APPLICATION = "Learning management"

SCHEMA = """
CREATE TABLE IF NOT EXISTS courses (id INTEGER PRIMARY KEY, code TEXT NOT NULL UNIQUE, title TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS assignments (id INTEGER PRIMARY KEY, course INTEGER NOT NULL REFERENCES courses (id),
  title TEXT NOT NULL, task TEXT NOT NULL, points INTEGER NOT NULL CHECK (points > 0));
CREATE TABLE IF NOT EXISTS submissions (id INTEGER PRIMARY KEY,
  assignment INTEGER NOT NULL REFERENCES assignments (id), student TEXT NOT NULL COLLATE NOCASE, text TEXT NOT NULL,
  points INTEGER, UNIQUE (assignment, student));
"""

COURSES = {
    ("CS-101", "Introduction to programming"): [
        ("Fibonacci", "Write a function that gives the n-th Fibonacci number.", 10),
        ("Word count", "Count how often each word occurs in a text.", 20),
    ],
    ("CS-315", "Virtualization and cloud computing"): [
        ("Rings", "Which rings do a guest's kernel and its hypervisor run in, and why?", 10),
        ("Containers", "Name what a container shares with its host, and what a virtual machine does not.", 10),
        ("Shadow pages", "Compare shadow page tables with nested paging.", 20),
    ],
    ("MA-110", "Linear algebra"): [("Bases", "Find a basis of the kernel of the matrix on the sheet.", 15)],
}


def seed(db):
    if db.execute("SELECT count(*) FROM courses").fetchone()[0] > 0:
        return
    for course, assignments in COURSES.items():
        made = db.execute("INSERT INTO courses (code, title) VALUES (?, ?)", course).lastrowid
        db.executemany(
            "INSERT INTO assignments (course, title, task, points) VALUES (?, ?, ?, ?)",
            [(made, *assignment) for assignment in assignments],
        )


database = None


def all_courses():
    courses = database.rows("SELECT id, code, title FROM courses ORDER BY code")
    for course in courses:
        course["assignments"] = database.rows(
            """SELECT assignments.id, title, assignments.points, count(submissions.id) AS submissions
               FROM assignments LEFT JOIN submissions ON assignment = assignments.id
               WHERE course = ? GROUP BY assignments.id ORDER BY assignments.id""",
            course["id"],
        )
    return courses


def require_assignment(assignment):
    found = database.rows(
        """SELECT assignments.id, code, assignments.title, task, points
           FROM assignments JOIN courses ON courses.id = course WHERE assignments.id = ?""",
        assignment,
    )
    if not found:
        raise Refused(404, f"there is no assignment {assignment}")
    submissions = database.rows(
        "SELECT id, student, text, points FROM submissions WHERE assignment = ? ORDER BY student", assignment
    )
    return {**found[0], "submissions": submissions}


def submit(fields):
    """Handing in again replaces the text, as long as it has no grade."""
    assignment = number_field(fields, "assignment", 1, 10**9)
    student = text_field(fields, "student", 80)
    text = text_field(fields, "text", 10_000)
    require_assignment(assignment)
    with database.transaction() as db:
        before = db.execute(
            "SELECT id, points FROM submissions WHERE assignment = ? AND student = ?", (assignment, student)
        ).fetchone()
        if before is None:
            values = (assignment, student, text)
            made = db.execute("INSERT INTO submissions (assignment, student, text) VALUES (?, ?, ?)", values).lastrowid
        elif before["points"] is not None:
            raise Refused(409, f"the work of {student} is graded already")
        else:
            made = before["id"]
            db.execute("UPDATE submissions SET text = ? WHERE id = ?", (text, made))
    return {"id": made, "assignment": assignment, "student": student}


def grade(fields):
    submission = number_field(fields, "submission", 1, 10**9)
    points = number_field(fields, "points", 0, 10**6)
    with database.transaction() as db:
        found = db.execute(
            """SELECT assignment, assignments.points AS most FROM submissions
               JOIN assignments ON assignments.id = assignment WHERE submissions.id = ?""",
            (submission,),
        ).fetchone()
        if found is None:
            raise Refused(404, f"there is no submission {submission}")
        if points > found["most"]:
            raise Refused(400, f"this assignment gives at most {found['most']} points")
        db.execute("UPDATE submissions SET points = ? WHERE id = ?", (points, submission))
    return {"submission": submission, "points": points, "assignment": found["assignment"]}


def grades():
    return database.rows(
        """SELECT student, code AS course, sum(submissions.points) AS points
           FROM submissions JOIN assignments ON assignments.id = assignment JOIN courses ON courses.id = course
           WHERE submissions.points IS NOT NULL GROUP BY student, code ORDER BY student, code"""
    )


def home(_request):
    cards = "".join(course_card(course) for course in all_courses())
    rows = "".join(
        f"<tr><td>{escape(row['student'])}</td><td>{escape(row['course'])}</td><td>{row['points']}</td></tr>"
        for row in grades()
    )
    table = f"<table><tr><th>Student</th><th>Course</th><th>Points</th></tr>{rows}</table>"
    return page(APPLICATION, "Courses", cards + (f'<section class="card"><h2>Grades</h2>{table}</section>' if rows else ""))


def course_card(course):
    rows = "".join(
        f"""<tr><td><a href="/assignments/{item["id"]}">{escape(item["title"])}</a></td>
<td>{item["points"]} points</td><td>{item["submissions"]} handed in</td></tr>"""
        for item in course["assignments"]
    )
    return f"""<section class="card"><h2>{escape(course["code"])} {escape(course["title"])}</h2>
<table>{rows}</table></section>"""


def assignment_page(_request, number):
    assignment = require_assignment(number)
    rows = "".join(submission_row(row, assignment["points"]) for row in assignment["submissions"])
    handed_in = f"<table><tr><th>Student</th><th>Work</th><th>Points</th></tr>{rows}</table>" if rows else ""
    content = f"""<section class="card"><h2>{escape(assignment["code"])}: {escape(assignment["title"])}</h2>
<p>{escape(assignment["task"])} <span class="soft">({assignment["points"]} points)</span></p>{handed_in}</section>
<section class="card"><h2>Hand in</h2><form method="post" action="/submit" style="display:block">
<input type="hidden" name="assignment" value="{assignment["id"]}">
<p><input name="student" placeholder="Your name" maxlength="80" required></p>
<p><textarea name="text" maxlength="10000" required></textarea></p><button>Hand in</button></form></section>"""
    return page(APPLICATION, assignment["title"], content)


def submission_row(row, most):
    if row["points"] is not None:
        points = f'<span class="good">{row["points"]} of {most}</span>'
    else:
        points = f"""<form method="post" action="/grade"><input type="hidden" name="submission" value="{row["id"]}">
<input type="number" name="points" min="0" max="{most}" required><button>Grade</button></form>"""
    return f"<tr><td>{escape(row['student'])}</td><td>{escape(row['text'])}</td><td>{points}</td></tr>"


ROUTES = [
    ("GET", "/", home),
    ("GET", r"/assignments/([0-9]{1,9})", assignment_page),
    ("POST", "/submit", lambda request: redirect(f"/assignments/{submit(request.fields())['assignment']}")),
    ("POST", "/grade", lambda request: redirect(f"/assignments/{grade(request.fields())['assignment']}")),
    ("GET", "/api/courses", lambda _request: send_json(all_courses())),
    ("GET", r"/api/assignments/([0-9]{1,9})", lambda _request, number: send_json(require_assignment(number))),
    ("POST", "/api/submissions", lambda request: send_json(submit(request.fields()), 201)),
    ("POST", "/api/grades", lambda request: send_json(grade(request.fields()))),
    ("GET", "/api/grades", lambda _request: send_json(grades())),
]

if __name__ == "__main__":
    database = Database(data_file("lms.db"), SCHEMA, seed)
    serve(APPLICATION, ROUTES, int(os.environ.get("PORT", "8080")))
