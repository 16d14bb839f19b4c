import { z } from "zod";

const kib = 1024;
const mib = 1024 * kib;

/** A disk is looked at in blocks of this size: guest file systems move data in it. */
export const blockBytes = 4096;

const Blocks = z
  .int()
  .refine((value) => value % blockBytes === 0, { message: `must be a multiple of ${blockBytes}` });

/** Fixed when a repository is created; stored in its config, in bytes. */
export const RepositorySettings = z
  .strictObject({
    packBytes: z
      .int()
      .min(64 * kib)
      .max(64 * mib),
    chunkBytesMin: Blocks.min(blockBytes).max(512 * kib),
    chunkBytesTarget: Blocks.min(2 * blockBytes).max(512 * kib),
    chunkBytesMax: Blocks.min(2 * blockBytes).max(mib),
    leafBytes: Blocks.min(64 * kib).max(256 * mib),
  })
  .refine(
    ({ chunkBytesMin, chunkBytesTarget, chunkBytesMax, leafBytes, packBytes }) =>
      chunkBytesMin < chunkBytesTarget &&
      chunkBytesTarget <= chunkBytesMax &&
      chunkBytesMax <= leafBytes &&
      chunkBytesMax <= packBytes,
    { message: "sizes must rise: chunk minimum < target <= maximum <= leaf and pack" },
  );
export type RepositorySettings = z.infer<typeof RepositorySettings>;

/**
 * Chunks of 96 KiB, never far from it: over three related file system images they take 5 % less than 32/128/512 KiB do, and a random change of 64 KiB
 * makes 2.6 times as much be read, not 4 times (docs/performance.md). The price is a third more index.
 */
export const defaultSettings: RepositorySettings = {
  packBytes: 32 * mib,
  chunkBytesMin: 64 * kib,
  chunkBytesTarget: 96 * kib,
  chunkBytesMax: 256 * kib,
  leafBytes: 64 * mib,
};
