import { expect, test } from "vitest";
import {
  explainFailure,
  findings,
  isMissing,
  parseBackupLine,
  parseRepositoryId,
  parseSnapshotIds,
} from "./restic-output.ts";

/** As restic 0.14 prints them. */
const summary =
  '{"message_type":"summary","files_new":1,"files_changed":0,"data_blobs":23,"tree_blobs":1,"data_added":43807156,"total_files_processed":1,"total_bytes_processed":4294967296,"total_duration":11.5,"snapshot_id":"e2304344"}';
const status = '{"message_type":"status","seconds_elapsed":1,"percent_done":0,"bytes_done":251658240}';

/** Of a check that came upon a pack that was cut short. */
const truncated = [
  "pack 56ef55512a44fdc23f61d4334f69088ca27e0436d3da1d4ee8e3dbcaeab0bc09: unexpected file size: got 1048576, expected 8389346",
  "Load(<data/56ef55512a>, 8389346, 0) returned error, retrying after 552.330144ms: ReadFull: unexpected EOF",
  "pack 56ef55512a44fdc23f61d4334f69088ca27e0436d3da1d4ee8e3dbcaeab0bc09 failed to download: StreamPack: ReadFull: unexpected EOF",
  "Fatal: repository contains errors",
].join("\n");

test("progress and summary of a backup; all else is nothing", () => {
  expect(parseBackupLine(status)).toEqual({ type: "progress", bytes: 251658240 });
  expect(parseBackupLine('{"message_type":"status","percent_done":0}')).toEqual({
    type: "progress",
    bytes: 0,
  });
  expect(parseBackupLine(summary)).toEqual({
    type: "summary",
    readBytes: 4294967296,
    addedBytes: 43807156,
  });
  for (const line of ["", "created new cache", "[]", '{"message_type":"error"}', '{"bytes_done":']) {
    expect(parseBackupLine(line)).toBeUndefined();
  }
});

test("ids of snapshots and of the repository", () => {
  expect(parseSnapshotIds('[{"id":"aa","short_id":"a"},{"id":"bb"}]')).toEqual(["aa", "bb"]);
  expect(parseSnapshotIds("null")).toEqual([]);
  expect(parseSnapshotIds("no JSON")).toEqual([]);
  expect(parseRepositoryId('{"version":2,"id":"39","chunker_polynomial":"2a"}')).toBe("39");
  expect(parseRepositoryId("[1]")).toBeUndefined();
});

test.each([
  ["Fatal: wrong password or no key found", "Forbidden", /the key does not open/],
  ["Fatal: unable to open config file: Stat: Access Denied.", "Forbidden", /refuses the access key/],
  [
    'Fatal: unable to open config file: Stat: Get "http://127.0.0.1:1/b/?location=": dial tcp 127.0.0.1:1: connect: connection refused',
    "Unavailable",
    /does not answer/,
  ],
  ["unable to create lock in backend: repository is already locked by PID 7", "Unavailable", /somebody else/],
  ["write /x/data/aa: no space left on device", "Unavailable", /no space left/],
  [
    "Fatal: unable to open config file: stat /x/config: no such file or directory",
    "Unavailable",
    /no repository/,
  ],
  ["ciphertext verification failed", "Internal", /damaged/],
  [truncated, "Internal", /damaged/],
  [
    'Fatal: unable to open config file: Stat: Get "https://s3/b/?location=": EOF',
    "Unavailable",
    /does not answer/,
  ],
  ["Fatal: unable to open config file: Stat: 500 Internal Server Error", "Unavailable", /service fails/],
  ["Fatal: unable to open config file: Stat: 307 Temporary Redirect", "Unavailable", /is elsewhere/],
  [
    'Fatal: unable to open config file: Stat: Head "https://s3/b/config": Bad Gateway',
    "Unavailable",
    /does not answer/,
  ],
  ["panic: something new", "Internal", /restic failed/],
])("%s", (stderr, code, message) => {
  const error = explainFailure("save", stderr);
  expect(error).toMatchObject({ code, message: expect.stringMatching(message) });
  expect(error.message).toMatch(/^cannot save: /);
});

test("nothing there is told apart from what does not answer", () => {
  expect(isMissing("Fatal: unable to open config file: stat nope/config: no such file or directory")).toBe(
    true,
  );
  expect(isMissing("Fatal: unable to open config file: Stat: The specified key does not exist.")).toBe(true);
  expect(isMissing("Fatal: unable to open config file: dial tcp 127.0.0.1:1: connection refused")).toBe(
    false,
  );
  expect(isMissing("Fatal: wrong password or no key found")).toBe(false);
});

test("what a check complains of is short, and never empty when there is something", () => {
  const stderr = [
    "error for tree 1234: ...",
    "Pack ID does not match, want 1e5, got 9ca",
    "Fatal: repository contains errors",
  ].join("\n");
  expect(findings(stderr, "using temporary cache")).toBe(
    "error for tree 1234: ...; Pack ID does not match, want 1e5, got 9ca",
  );
  expect(findings("Fatal: repository contains errors", "")).toBe("Fatal: repository contains errors");
});
