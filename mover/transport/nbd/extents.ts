import type { Extent } from "@holdfast/shared/domain/extent";
import { Failure } from "@holdfast/shared/domain/failure";
import type { NbdReadOptions } from "@holdfast/shared/ports/transport";
import type { StatusRun, Transmission } from "./transmission.ts";

/**
 * What a server says about its blocks, as extents: from 0 to the size, in order, no gaps, equal neighbours merged.
 * Memory is one reply, whatever the disk's size.
 */
export type ExtentRule = NbdReadOptions["extents"];

const allocation = "base:allocation";
const depth = "qemu:allocation-depth";

/** Contexts that a rule needs; all of them must have been negotiated. */
export function contextsOf(rule: ExtentRule): readonly string[] {
  switch (rule.by) {
    case "allocation":
      return [allocation];
    case "dirty-bitmap":
      return [allocation, bitmapContext(rule.name)];
    case "depth":
      return [allocation, depth];
    case "list":
      return [];
    default:
      return rule satisfies never;
  }
}

const bitmapContext = (name: string): string => `qemu:dirty-bitmap:${name}`;

export function readExtents(
  transmission: Transmission,
  rule: ExtentRule,
  signal?: AbortSignal,
): AsyncIterable<Extent> {
  if (rule.by === "list") return mergeExtents(fillList(rule, transmission.export.sizeBytes));
  return mergeExtents(readStatus(transmission, rule, signal));
}

/** As much as a u32 can ask for, in whole units of 4 MiB, a multiple of every block size there is. */
const statusLengthMax = 2 ** 32 - 4 * 1024 * 1024;

async function* readStatus(
  transmission: Transmission,
  rule: Exclude<ExtentRule, { by: "list" }>,
  signal: AbortSignal | undefined,
): AsyncGenerator<Extent> {
  const { sizeBytes, contexts } = transmission.export;
  const ids = contextsOf(rule).map((name) => contexts.get(name));
  const kindOf = kindRules[rule.by];
  const ask = (offset: number) => {
    const length = Math.min(sizeBytes - offset, statusLengthMax);
    const answer = transmission.blockStatus(offset, length);
    // Whoever stops iterating never looks at the answer that was asked for ahead.
    answer.catch(() => undefined);
    return { length, answer };
  };
  let offset = 0;
  let asked = sizeBytes > 0 ? ask(0) : undefined;
  while (asked !== undefined) {
    const { length, answer } = asked;
    const status = await answer;
    signal?.throwIfAborted();
    const runs = ids.map((id) => status.get(id ?? -1));
    const covered = Math.min(length, ...runs.map(coveredBytes));
    if (!(covered > 0)) {
      throw new Failure("protocol.invalid", {
        message: `the NBD server's block status at ${offset} lacks a context that it promised`,
      });
    }
    const start = offset;
    offset += covered;
    // The next answer travels while this one is used.
    asked = offset < sizeBytes ? ask(offset) : undefined;
    yield* combine({ start, covered, first: runs[0] ?? [], second: runs[1], kindOf });
  }
}

function coveredBytes(runs: readonly StatusRun[] | undefined): number {
  let covered = 0;
  for (const run of runs ?? []) covered += run.length;
  return covered;
}

type Kind = Extent["kind"];
type KindRule = (allocationFlags: number, otherFlags: number) => Kind;

const zeroFlag = 2;
const dirtyFlag = 1;
const topLayer = 1;
const byAllocation = (flags: number): Kind => ((flags & zeroFlag) === 0 ? "data" : "zero");

const kindRules: Readonly<Record<Exclude<ExtentRule["by"], "list">, KindRule>> = {
  // A hole without the zero flag has undefined content: it is read.
  allocation: byAllocation,
  // Dirty and zero must be recorded as zeros, or old data would come back at a restore.
  "dirty-bitmap": (flags, dirty) => ((dirty & dirtyFlag) === 0 ? "unchanged" : byAllocation(flags)),
  depth: (flags, layer) => (layer === topLayer ? byAllocation(flags) : "unchanged"),
};

/** Walks one or two lists of runs in step; both cover at least `covered` bytes. */
function* combine(options: {
  readonly start: number;
  readonly covered: number;
  readonly first: readonly StatusRun[];
  readonly second: readonly StatusRun[] | undefined;
  readonly kindOf: KindRule;
}): Generator<Extent> {
  const { start, covered, first, kindOf } = options;
  const second = options.second ?? [{ length: covered, flags: 0 }];
  let at = 0;
  let [i, j] = [0, 0];
  let firstEnd = first[0]?.length ?? 0;
  let secondEnd = second[0]?.length ?? 0;
  while (at < covered) {
    const end = Math.min(firstEnd, secondEnd, covered);
    const kind = kindOf(first[i]?.flags ?? 0, second[j]?.flags ?? 0);
    yield { offset: start + at, length: end - at, kind };
    at = end;
    if (firstEnd === at) firstEnd += first[++i]?.length ?? 0;
    if (secondEnd === at) secondEnd += second[++j]?.length ?? 0;
  }
}

/** The listed ranges, with `otherwise` between them. The list must be ascending, disjoint and within the disk. */
export function* fillList(
  rule: Extract<ExtentRule, { by: "list" }>,
  sizeBytes: number,
): Generator<Extent> {
  checkList(rule.list, sizeBytes);
  let at = 0;
  for (const extent of rule.list) {
    if (extent.offset > at) yield { offset: at, length: extent.offset - at, kind: rule.otherwise };
    if (extent.length > 0) yield extent;
    at = extent.offset + extent.length;
  }
  if (at < sizeBytes) yield { offset: at, length: sizeBytes - at, kind: rule.otherwise };
}

/** Fails with `changes.unknown`: a list that makes no sense says nothing about the disk. */
export function checkList(list: readonly Extent[], sizeBytes: number): void {
  let at = 0;
  for (const { offset, length } of list) {
    if (
      !Number.isSafeInteger(offset) ||
      !Number.isSafeInteger(length) ||
      offset < at ||
      length < 0 ||
      offset + length > sizeBytes
    ) {
      throw new Failure("changes.unknown", {
        message: `the list of changed ranges is out of order or outside of the disk at ${offset}+${length} (size ${sizeBytes})`,
      });
    }
    at = offset + length;
  }
}

/** Joins neighbours of one kind. */
export async function* mergeExtents(
  extents: Iterable<Extent> | AsyncIterable<Extent>,
): AsyncGenerator<Extent> {
  let held: Extent | undefined;
  for await (const extent of extents) {
    if (held === undefined) held = extent;
    else if (held.kind === extent.kind) held = { ...held, length: held.length + extent.length };
    else {
      yield held;
      held = extent;
    }
  }
  if (held !== undefined) yield held;
}
