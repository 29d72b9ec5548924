#!/usr/bin/env python3
"""Learning management: assignments of courses, what students hand in, and their grades.

usage: lms.py PORT DATABASE
"""

import sys

from web import Database, Problem, escape, number_field, page, serve, text_field

SCHEMA = """
CREATE TABLE IF NOT EXISTS assignments (id INTEGER PRIMARY KEY, course TEXT NOT NULL, title TEXT NOT NULL, UNIQUE (course, title));
CREATE TABLE IF NOT EXISTS submissions (
  id INTEGER PRIMARY KEY, assignment INTEGER NOT NULL REFERENCES assignments(id), student TEXT NOT NULL,
  text TEXT NOT NULL, grade INTEGER, UNIQUE (assignment, student));
"""
ASSIGNMENTS = [
    ("Operating Systems", "Write a scheduler"),
    ("Operating Systems", "Boot a kernel in a virtual machine"),
    ("Databases", "Normalise a timetable"),
]
TITLE = "Learning management system"


class LearningManagement:
    def __init__(self, path):
        rows = [("INSERT OR IGNORE INTO assignments (course, title) VALUES (?, ?)", one) for one in ASSIGNMENTS]
        self.database = Database(path, SCHEMA, rows)

    def assignments(self):
        return self.database.rows(
            "SELECT id, course, title, (SELECT count(*) FROM submissions WHERE assignment = assignments.id) AS submissions"
            " FROM assignments ORDER BY course, id"
        )

    def submissions(self):
        return self.database.rows("SELECT id, assignment, student, text, grade FROM submissions ORDER BY id")

    def submit(self, form):
        assignment = number_field(form, "assignment", 1, 10**9)
        student = text_field(form, "student")
        text = text_field(form, "text", limit=10_000)

        def change(db):
            if db.execute("SELECT 1 FROM assignments WHERE id = ?", (assignment,)).fetchone() is None:
                raise Problem(404, f"there is no assignment {assignment}")
            row = db.execute(
                "INSERT INTO submissions (assignment, student, text) VALUES (?, ?, ?)"
                " ON CONFLICT (assignment, student) DO UPDATE SET text = excluded.text WHERE grade IS NULL RETURNING id",
                (assignment, student, text),
            ).fetchone()
            if row is None:
                raise Problem(409, f"{student}'s work is graded already")
            return {"id": row["id"], "assignment": assignment, "student": student}

        return self.database.transaction(change)

    def grade(self, form):
        submission = number_field(form, "submission", 1, 10**9)
        grade = number_field(form, "grade", 0, 100)

        def change(db):
            cursor = db.execute("UPDATE submissions SET grade = ? WHERE id = ?", (grade, submission))
            if cursor.rowcount == 0:
                raise Problem(404, f"there is no submission {submission}")
            return {"submission": submission, "grade": grade}

        return self.database.transaction(change)

    def page(self):
        submissions = self.submissions()
        sections = []
        for assignment in self.assignments():
            rows = "".join(
                f"<tr><td>{escape(one['student'])}</td><td>{escape(one['text'][:200])}</td>"
                f"<td>{'' if one['grade'] is None else one['grade']}</td>"
                f'<td><form method="post" action="/grade"><input type="hidden" name="submission" value="{one["id"]}">'
                '<input name="grade" type="number" min="0" max="100" required><button>Grade</button></form></td></tr>'
                for one in submissions
                if one["assignment"] == assignment["id"]
            )
            table = f"<table><tr><th>Student<th>Work<th>Grade<th></tr>{rows}</table>" if rows else "<p>Nothing handed in yet.</p>"
            sections.append(
                f"<section><h2>{escape(assignment['course'])}: {escape(assignment['title'])}</h2>{table}"
                f'<form method="post" action="/submit"><input type="hidden" name="assignment" value="{assignment["id"]}">'
                '<input name="student" placeholder="Name" maxlength="100" required>'
                '<input name="text" placeholder="Your work" maxlength="10000" required><button>Hand in</button></form></section>'
            )
        return page(TITLE, "".join(sections))


def main():
    if len(sys.argv) != 3 or not sys.argv[1].isdecimal():
        sys.exit(__doc__)
    app = LearningManagement(sys.argv[2])
    serve(
        TITLE,
        int(sys.argv[1]),
        {
            ("GET", "/"): app.page,
            ("GET", "/api/assignments"): app.assignments,
            ("GET", "/api/submissions"): app.submissions,
            ("POST", "/api/submissions"): app.submit,
            ("POST", "/api/grades"): app.grade,
            ("POST", "/submit"): lambda form: app.submit(form) and None,
            ("POST", "/grade"): lambda form: app.grade(form) and None,
        },
    )


main()
