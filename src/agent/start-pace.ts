const longestMs = 1_000;

/**
 * How long to wait before looking again whether something that is starting has come up, in milliseconds: a twentieth of the
 * time that it has taken so far, so that its being up is noticed at most so much later than it could be, and looks at what takes
 * long are few (about 20 for each factor of e in time); at most a second.
 */
export function startPaceMs(ageMs: number, shortestMs = 50): number {
  return Math.min(longestMs, Math.max(shortestMs, ageMs / 20));
}
