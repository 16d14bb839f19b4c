import type { ByteRun } from "./leaf-plan.ts";

/**
 * Guesses from the reads of a disk what will be read next. Several readers may go through the disk at once, and one may
 * have many reads in flight that arrive a little out of order.
 */
export type ReadAhead = {
  /** Tell it each read; returns what is worth reading ahead now, beyond what it said before. */
  readonly observe: (read: ByteRun) => ByteRun | undefined;
};

export type ReadAheadSettings = {
  readonly windowBytesMin: number;
  readonly windowBytesMax: number;
};

type Stream = { end: number; aheadEnd: number; windowBytes: number; reads: number };

/** More are forgotten, those that moved longest ago first. */
const streamsMax = 16;
/** Reads of one stream arrive at most so far from where it is. */
const slackBytes = 4 * 1024 * 1024;
/** As many make a stream. */
const readsMin = 2;

export function createReadAhead(sizeBytes: number, settings: ReadAheadSettings): ReadAhead {
  /** The one that moved last comes last. */
  const streams = new Set<Stream>();

  function follow({ offset, length }: ByteRun): Stream {
    for (const stream of streams) {
      if (offset < stream.end - slackBytes || offset > stream.end + slackBytes) continue;
      streams.delete(stream);
      streams.add(stream);
      // The same place again is no progress.
      if (offset + length > stream.end) {
        stream.end = offset + length;
        stream.reads += 1;
      }
      return stream;
    }
    for (const oldest of streams) {
      if (streams.size < streamsMax) break;
      streams.delete(oldest);
    }
    const end = offset + length;
    const stream = { end, aheadEnd: end, windowBytes: settings.windowBytesMin, reads: 1 };
    streams.add(stream);
    return stream;
  }

  return {
    observe: (read) => {
      const stream = follow(read);
      if (stream.reads < readsMin) return undefined;
      const from = Math.max(stream.aheadEnd, stream.end);
      const until = Math.min(stream.end + stream.windowBytes, sizeBytes);
      // In steps of half a window, so that ranges stay long.
      if (until - from < Math.min(stream.windowBytes / 2, sizeBytes - from) || until <= from) {
        return undefined;
      }
      stream.aheadEnd = until;
      stream.windowBytes = Math.min(stream.windowBytes * 2, settings.windowBytesMax);
      return { offset: from, length: until - from };
    },
  };
}
