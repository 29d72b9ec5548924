/** The applications of examples/campus by themselves, run by the host's Python on loopback. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

/** The images bring their own Python; a host need not have one. */
const hasPython = spawnSync("python3", ["--version"]).status === 0;

interface Course {
  id: number;
  code: string;
  seats: number;
  enrolled: number;
}

class Application {
  readonly #process: ChildProcess;
  readonly #directory: string;
  readonly url: string;

  private constructor(child: ChildProcess, directory: string, url: string) {
    this.#process = child;
    this.#directory = directory;
    this.url = url;
  }

  static async start(name: string): Promise<Application> {
    const directory = await mkdtemp(join(tmpdir(), "campus-"));
    const program = new URL(`../examples/campus/${name}/app.py`, import.meta.url).pathname;
    const env = { ...process.env, STATE_DIRECTORY: directory, PORT: "0", LISTEN_ADDRESS: "127.0.0.1" };
    const child = spawn("python3", ["-B", program], { env, stdio: ["ignore", "pipe", "ignore"] });
    const line = await new Promise<string>((resolve, reject) => {
      child.stdout.once("data", (data: Buffer) => resolve(data.toString()));
      child.once("exit", (status) => reject(new Error(`${name} ended with ${status}`)));
    });
    return new Application(child, directory, `http://127.0.0.1:${/port (\d+)/.exec(line)?.[1]}`);
  }

  async stop(): Promise<void> {
    const ended = new Promise((resolve) => this.#process.once("exit", resolve));
    this.#process.kill();
    await ended;
    await rm(this.#directory, { recursive: true, force: true });
  }

  async get<T>(path: string): Promise<T> {
    return (await (await fetch(`${this.url}${path}`)).json()) as T;
  }

  async page(path: string): Promise<string> {
    return await (await fetch(`${this.url}${path}`)).text();
  }

  async post(path: string, body: unknown, headers: Record<string, string> = {}): Promise<number> {
    const response = await fetch(`${this.url}${path}`, {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: typeof body === "string" ? body : JSON.stringify(body),
      redirect: "manual",
    });
    await response.arrayBuffer();
    return response.status;
  }
}

describe.skipIf(!hasPython)("student enrollment", () => {
  let app: Application;
  beforeAll(async () => {
    app = await Application.start("enrollment");
  });
  afterAll(() => app?.stop());
  const smallest = async () =>
    (await app.get<Course[]>("/api/courses")).reduce((a, b) => (a.seats <= b.seats ? a : b));

  it("says which instance answers", async () => {
    expect(await app.get("/healthz")).toEqual({ status: "ok", instance: hostname() });
    expect(await app.page("/")).toContain(`answered by <code>${hostname()}</code>`);
  });

  it("never gives one seat to two students", async () => {
    const course = await smallest();
    const requests = Array.from({ length: 40 }, (_, i) =>
      app.post("/api/enrollments", { course: course.id, student: `Student ${i}` }),
    );
    const statuses = await Promise.all(requests);
    expect(statuses.filter((status) => status === 201)).toHaveLength(course.seats);
    expect(statuses.filter((status) => status === 409)).toHaveLength(40 - course.seats);
    expect((await smallest()).enrolled).toBe(course.seats);
  });

  it("gives a seat back", async () => {
    const course = await smallest();
    const { students } = await app.get<{ students: { id: number }[] }>(`/api/courses/${course.id}`);
    const path = `${app.url}/api/enrollments/${students[0]?.id}`;
    expect((await fetch(path, { method: "DELETE" })).status).toBe(204);
    expect((await fetch(path, { method: "DELETE" })).status).toBe(404);
    expect((await smallest()).enrolled).toBe(course.seats - 1);
  });

  it("treats names as text, in SQL and in HTML", async () => {
    const name = `Robert'); DROP TABLE courses;-- <script>alert(1)</script>`;
    const [course] = await app.get<Course[]>("/api/courses");
    expect(await app.post("/api/enrollments", { course: course?.id, student: name })).toBe(201);
    const html = await app.page("/");
    expect(html).toContain("&lt;script&gt;");
    expect(html).not.toContain("<script>");
    expect(await app.get<Course[]>("/api/courses")).toHaveLength(5);
  });

  it.each([
    ["no JSON", "x", 400],
    ["a list", [], 400],
    ["no student", { course: 1 }, 400],
    ["a student of control characters", { course: 1, student: "a\u0007" }, 400],
    ["a course that is no number", { course: "1 OR 1=1", student: "a" }, 400],
    ["an unknown course", { course: 99_999, student: "a" }, 404],
    ["a body without end", "x".repeat(100_000), 413],
  ])("refuses %s", async (_what, body, status) => {
    expect(await app.post("/api/enrollments", body)).toBe(status);
  });

  it("refuses what another site asks for, and takes its own forms", async () => {
    const form = { "content-type": "application/x-www-form-urlencoded" };
    const body = "course=1&student=Grace+Hopper";
    expect(await app.post("/enroll", body, { ...form, "sec-fetch-site": "cross-site" })).toBe(403);
    expect(await app.post("/enroll", body, form)).toBe(303);
    expect(await app.page("/")).toContain("Grace Hopper");
  });
});

describe.skipIf(!hasPython)("learning management", () => {
  let app: Application;
  beforeAll(async () => {
    app = await Application.start("lms");
  });
  afterAll(() => app?.stop());

  it("takes work in, again until it is graded, and sums up grades", async () => {
    const work = { assignment: 1, student: "Ada", text: "def fib(n): ..." };
    expect(await app.post("/api/submissions", work)).toBe(201);
    expect(await app.post("/api/submissions", { ...work, text: "better" })).toBe(201);
    const { submissions, points } = await app.get<{
      points: number;
      submissions: { id: number; text: string }[];
    }>("/api/assignments/1");
    expect(submissions).toHaveLength(1);
    expect(submissions[0]?.text).toBe("better");
    const submission = submissions[0]?.id;
    expect(await app.post("/api/grades", { submission, points: points + 1 })).toBe(400);
    expect(await app.post("/api/grades", { submission, points })).toBe(200);
    expect(await app.post("/api/submissions", work)).toBe(409);
    expect(await app.get("/api/grades")).toEqual([{ student: "Ada", course: "CS-101", points }]);
    expect(await app.page("/assignments/1")).toContain(`${points} of ${points}`);
  });
});
