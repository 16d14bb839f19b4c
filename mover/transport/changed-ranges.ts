import { readFile, stat } from "node:fs/promises";
import type { Extent } from "@holdfast/shared/domain/extent";
import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import type { DiskReader } from "@holdfast/shared/ports/disk";
import { z } from "zod";
import { mergeExtents } from "./nbd/extents.ts";

export type ByteRange = { readonly offset: number; readonly length: number };

const fileBytesMax = 256 * 1024 ** 2;

const Position = z.int().min(0);

/** Ours, and what `nbdinfo --json --map=qemu:dirty-bitmap:NAME` prints: type 1 is dirty, 0 is not. */
const Listed = z.strictObject({
  offset: Position,
  length: Position,
  type: z.union([z.literal(0), z.literal(1)]).optional(),
  description: z.string().optional(),
});

/** What `qemu-img map --output=json` prints of an image with a backing file: depth 0 is the image itself. */
const Mapped = z.strictObject({
  start: Position,
  length: Position,
  depth: z.int().min(0),
  present: z.boolean().optional(),
  zero: z.boolean(),
  data: z.boolean(),
  compressed: z.boolean().optional(),
  offset: Position.optional(),
  filename: z.string().optional(),
});

const Changes = z.union([z.array(Listed), z.array(Mapped)]);

/**
 * Reads which ranges of a disk changed, from a file: `[{ "offset": 0, "length": 65536 }, …]` in bytes, in any order, or what `nbdinfo` says of
 * a dirty bitmap, or what `qemu-img map` says of an overlay. Returns them rising and disjoint.
 * Fails with `input.invalid` for anything else, and for a range that isn't within the disk: such a list is of another disk.
 */
export async function readChangedRanges(
  path: string,
  sizeBytes: number,
): Promise<readonly ByteRange[]> {
  const refuse = (why: string, cause?: unknown): Failure =>
    new Failure("input.invalid", { message: `the list of changes ${path} ${why}`, cause });
  let text: string;
  try {
    const { size } = await stat(path);
    if (size > fileBytesMax) throw refuse(`has more than ${fileBytesMax} bytes`);
    text = await readFile(path, "utf8");
  } catch (cause) {
    throw isFailure(cause) ? cause : refuse(`cannot be read: ${String(cause)}`, cause);
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw refuse(`is no JSON: ${String(cause)}`, cause);
  }
  const parsed = Changes.safeParse(json);
  if (!parsed.success) {
    // What the parser says is about all forms at once: several pages, of which none is of use.
    throw refuse(
      'is not of the form [{ "offset": 0, "length": 65536 }], nor what nbdinfo or qemu-img map print',
    );
  }
  const ranges: ByteRange[] = [];
  for (const entry of parsed.data) {
    const isChanged =
      "start" in entry ? entry.depth === 0 && entry.present !== false : entry.type !== 0;
    const offset = "start" in entry ? entry.start : entry.offset;
    const { length } = entry;
    if (!(offset + length <= sizeBytes)) {
      throw refuse(`names ${length} bytes at ${offset}, but the disk has ${sizeBytes} bytes`);
    }
    if (isChanged && length > 0) ranges.push({ offset, length });
  }
  return joinRanges(ranges);
}

/** Overlaps are joined: what any of them calls changed is changed. */
function joinRanges(ranges: ByteRange[]): readonly ByteRange[] {
  const joined: { offset: number; length: number }[] = [];
  for (const { offset, length } of ranges.sort((left, right) => left.offset - right.offset)) {
    const last = joined.at(-1);
    if (last !== undefined && offset <= last.offset + last.length) {
      last.length = Math.max(last.length, offset + length - last.offset);
    } else joined.push({ offset, length });
  }
  return joined;
}

/** The same disk, where all but the changed ranges (rising, disjoint) is called unchanged. */
export function withChanges<Reader extends DiskReader>(
  reader: Reader,
  changes: readonly ByteRange[],
): Reader {
  return {
    ...reader,
    extents: (call) => mergeExtents(markUnchanged(reader.extents(call), changes)),
    [Symbol.asyncDispose]: () => reader[Symbol.asyncDispose](),
  };
}

async function* markUnchanged(
  extents: AsyncIterable<Extent>,
  changes: readonly ByteRange[],
): AsyncGenerator<Extent> {
  let next = 0;
  for await (const { offset, length, kind } of extents) {
    const end = offset + length;
    for (let at = offset; at < end; ) {
      while (
        (changes[next]?.offset ?? Number.POSITIVE_INFINITY) + (changes[next]?.length ?? 0) <=
        at
      ) {
        next += 1;
      }
      const change = changes[next];
      const begin = Math.min(change?.offset ?? end, end);
      if (begin > at) yield { offset: at, length: begin - at, kind: "unchanged" };
      const until = Math.min(end, change === undefined ? end : change.offset + change.length);
      const from = Math.max(at, begin);
      if (until > from) yield { offset: from, length: until - from, kind };
      at = Math.max(until, begin);
    }
  }
}
