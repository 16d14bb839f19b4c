import type { DiskRun } from "../pipeline/point-reader.ts";

/** A disk that the server offers, never to be written. */
export type NbdDisk = {
  /** By which clients ask for it. */
  readonly name: string;
  readonly description: string;
  readonly sizeBytes: number;
  /** Fills `into`; nothing of it is used when this fails. */
  readonly read: (offset: number, into: Uint8Array) => Promise<void>;
  /** From `offset` on, without gaps; at least one run, at most `length` bytes. */
  readonly runs: (offset: number, length: number) => Promise<readonly DiskRun[]>;
};

/** What a server says to all requests that no server of a disk may be asked. */
export const allocationContext = "base:allocation";
/** The number by which replies name that context. */
export const allocationContextId = 1;

/** The longest read: what clients may ask for that were told no limits. */
export const readBytesMax = 32 * 1024 * 1024;
/** Chunks are of about this size. */
export const blockBytesPreferred = 128 * 1024;
