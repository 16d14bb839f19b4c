import { describe, expect, test } from "vitest";
import { Failure } from "../../domain/failure.ts";
import type { SessionState } from "../session/session-state.ts";
import { judgeRoots, type KnownRoot } from "./known-root.ts";

const sessionId = (letter: string): string => letter.repeat(16);
const rootKey = (session: string, end: string, point = "p", fence = 1): string =>
  `points/vm/${point}-job-${fence}-${sessionId(session)}${end.repeat(16)}`;

function root(key: string, point = "p", fence = 1): [string, KnownRoot] {
  const names = { vmKey: "vm", vmName: "vm", takenAt: "", recordKeys: [], metadataKey: "" };
  return [key, { rootKey: key, pointId: point, fence, ...names }];
}

function session(letter: string, more: Partial<SessionState> = {}): [string, SessionState] {
  const id = sessionId(letter);
  const none = { renewals: [], fences: [], ends: new Map(), endNones: [] };
  return [id, { sessionId: id, starts: ["start"], ...none, ...more }];
}

const endOf = (...ends: readonly string[]) => ({
  ends: new Map(ends.map((end) => [end.repeat(16), [`end-${end}`]])),
});

function judge(
  sessions: readonly [string, SessionState][],
  known: readonly [string, KnownRoot | Error][],
  more: Partial<Parameters<typeof judgeRoots>[0]> = {},
) {
  const rootKeys = more.rootKeys ?? known.map(([key]) => key);
  return judgeRoots({
    before: new Set(rootKeys),
    sessions: new Map(sessions),
    known: new Map(known),
    expiring: new Set(),
    pinned: new Set(),
    hasLapsed: () => false,
    ...more,
    rootKeys,
  });
}

const none = { kept: [], expired: [], held: [], superseded: [], unexplained: [] };

test("an end makes a root a point, an end without a point unmakes all of them", () => {
  const key = rootKey("a", "1");
  expect(judge([session("a", endOf("1"))], [root(key)])).toEqual({ ...none, kept: [key] });
  const failed = session("a", { ...endOf("1"), endNones: ["none"] });
  expect(judge([failed], [root(key)])).toEqual({ ...none, superseded: [key] });
});

test("of a session that is open nothing is judged", () => {
  expect(judge([session("a")], [root(rootKey("a", "1"))])).toEqual(none);
});

test("a root whose session is unknown goes only if it was there before the sessions were listed", () => {
  const key = rootKey("a", "1");
  const damaged = new Error("damaged");
  expect(judge([], [[key, damaged]])).toEqual({ ...none, superseded: [key] });
  expect(judge([], [[key, damaged]], { before: new Set() })).toEqual(none);
  expect(judge([], [root(key)], { before: new Set() })).toEqual(none);
});

describe("an authentic root whose session is not there", () => {
  const key = rootKey("a", "1");
  const startless = session("a", { ...endOf("1"), starts: [] });

  test("stays until it has been seen for long enough", () => {
    expect(judge([], [root(key)])).toEqual({ ...none, unexplained: [key] });
    expect(judge([startless], [root(key)])).toEqual({ ...none, unexplained: [key] });
    const lapsed = judge([], [root(key)], { hasLapsed: (its) => its === key });
    expect(lapsed).toEqual({ ...none, superseded: [key] });
  });

  test("stays also when only another key may open it", () => {
    const other = new Failure("repository.epoch-unknown", { message: "another key" });
    expect(judge([], [[key, other]])).toEqual({ ...none, unexplained: [key] });
  });

  test("goes when a word is left that it is no point, or it is to go", () => {
    const failed = session("a", { endNones: ["none"], starts: [] });
    expect(judge([failed], [root(key)])).toEqual({ ...none, superseded: [key] });
    const expiring = judge([], [root(key)], { expiring: new Set([key]) });
    expect(expiring).toEqual({ ...none, superseded: [key] });
  });

  test("goes when its point has another attempt that counts, and stays when that is an earlier one", () => {
    const point = rootKey("b", "2");
    const counting = [session("b", endOf("2"))] as const;
    expect(judge(counting, [root(key, "p", 1), root(point, "p", 1)])).toEqual({
      ...none,
      kept: [point],
      superseded: [key],
    });
    expect(judge(counting, [root(key, "p", 2), root(point, "p", 1)])).toEqual({
      ...none,
      kept: [point],
      unexplained: [key],
    });
  });
});

test("another attempt of a session whose point stays may still be committed: it stays, too", () => {
  const [point, attempt] = [rootKey("a", "1"), rootKey("a", "2")];
  const ended = [session("a", endOf("1"))];
  const judged = judge(ended, [root(point), root(attempt)]);
  expect(judged).toEqual({ ...none, kept: [point, attempt] });
  const gone = judge(ended, [root(point), root(attempt)], { expiring: new Set([point]) });
  expect(gone).toEqual({ ...none, expired: [point], superseded: [attempt] });
});

test("of several attempts at a point those with a lower fence go; those with the highest all stay", () => {
  const low = rootKey("a", "1", "p", 1);
  const high = [rootKey("b", "1", "p", 2), rootKey("c", "1", "p", 2)];
  const sessions = ["a", "b", "c"].map((letter) => session(letter, endOf("1")));
  const known = [root(low, "p", 1), ...high.map((key) => root(key, "p", 2))];
  expect(judge(sessions, known)).toEqual({ ...none, kept: high, superseded: [low] });
});

test("a point goes with all its earlier attempts: none of them comes back in its place", () => {
  const [low, high] = [rootKey("a", "1", "p", 1), rootKey("b", "1", "p", 2)];
  const other = rootKey("c", "1", "q", 1);
  const sessions = ["a", "b", "c"].map((letter) => session(letter, endOf("1")));
  const known = [root(low, "p", 1), root(high, "p", 2), root(other, "q", 1)];
  const judged = judge(sessions, known, { expiring: new Set([high]) });
  expect(judged).toEqual({ ...none, kept: [other], expired: [low, high] });
});

test("what does not open is a point like any other, until it is given up", () => {
  const key = rootKey("a", "1");
  const sessions = [session("a", endOf("1"))];
  const known: [string, Error][] = [[key, new Error("damaged")]];
  expect(judge(sessions, known)).toEqual({ ...none, kept: [key] });
  expect(judge(sessions, known, { expiring: new Set([key]) })).toEqual({ ...none, expired: [key] });
});

test("a pinned point is held", () => {
  const key = rootKey("a", "1");
  const both = { expiring: new Set([key]), pinned: new Set([key]) };
  const judged = judge([session("a", endOf("1"))], [root(key)], both);
  expect(judged).toEqual({ ...none, kept: [key], held: [key] });
});
