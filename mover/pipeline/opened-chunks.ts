import type { PackRange } from "./restore-plan.ts";

/** Chunks that were opened together, in one piece of memory; so they are also kept and forgotten together. */
type Batch = {
  readonly bytes: Uint8Array;
  readonly keys: readonly string[];
};

/**
 * Opened chunks by their ids. Holds at most so many bytes; what was used longest ago goes first.
 * A batch that is larger than all that is never kept.
 */
export type OpenedChunks = {
  readonly find: (key: string) => Uint8Array | undefined;
  /** True without counting as a use. */
  readonly has: (key: string) => boolean;
  readonly add: (range: PackRange, bytes: Uint8Array) => void;
  readonly bytes: () => number;
};

export function createOpenedChunks(bytesMax: number): OpenedChunks {
  /** In the order of use; the values are the places of the chunks. */
  const batches = new Set<Batch>();
  const places = new Map<string, { readonly batch: Batch; readonly plain: Uint8Array }>();
  let bytesHeld = 0;

  function forget(batch: Batch): void {
    batches.delete(batch);
    bytesHeld -= batch.bytes.length;
    for (const key of batch.keys) if (places.get(key)?.batch === batch) places.delete(key);
  }

  return {
    find: (key) => {
      const place = places.get(key);
      if (place === undefined) return undefined;
      batches.delete(place.batch);
      batches.add(place.batch);
      return place.plain;
    },
    has: (key) => places.has(key),
    add: (range, bytes) => {
      if (bytes.length > bytesMax) return;
      const batch = { bytes, keys: range.chunks.map(({ id }) => chunkKey(id)) };
      let from = 0;
      for (const [position, { length }] of range.chunks.entries()) {
        const key = batch.keys[position] ?? "";
        places.set(key, { batch, plain: bytes.subarray(from, from + length) });
        from += length;
      }
      batches.add(batch);
      bytesHeld += bytes.length;
      for (const oldest of batches) {
        if (bytesHeld <= bytesMax) break;
        forget(oldest);
      }
    },
    bytes: () => bytesHeld,
  };
}

/** By its id: the same bytes, wherever they lie. */
export function chunkKey(id: Uint8Array): string {
  return Buffer.from(id.buffer, id.byteOffset, id.length).toString("latin1");
}
