import { Failure } from "@holdfast/shared/domain/failure";
import type { DiskStats } from "@holdfast/shared/repository/extent-map/disk-record";
import {
  createLeafTable,
  decodeLeafTable,
  type LeafTable,
} from "@holdfast/shared/repository/extent-map/leaf-table";
import { createByteReader, createByteWriter } from "@holdfast/shared/repository/format/bytes";
import type { Repository } from "@holdfast/shared/repository/repository";
import type { Session } from "@holdfast/shared/repository/session/sessions";
import { z } from "zod";

/**
 * What a transfer has finished, as small JSON: only leaves that are stored together with all their packs. Sealed, because whoever keeps
 * it (the catalog) is not trusted with the extent map; where there is too much of it, in sealed objects of its own.
 */
/** How much a transfer believes its source, from most to least; each sample that fails goes one further. */
export const transferModes = ["incremental", "full", "all"] as const;
export type TransferMode = (typeof transferModes)[number];

const Checkpoint = z.object({
  v: z.literal(1),
  mode: z.enum(transferModes),
  /** What it names is sure to be there only as long as this session is open. */
  sessionId: z.string(),
  diskKey: z.string(),
  sizeBytes: z.int().min(0),
  previous: z.string().optional(),
  /** Sealed objects of finished leaves. */
  parts: z.array(z.string().regex(/^checkpoints\/[0-9a-f]{32}$/)).max(100_000),
  /** The newest finished leaves, sealed, in base64. */
  inline: z.string(),
  stats: z.object({
    bytesRead: z.int().min(0),
    bytesNew: z.int().min(0),
    bytesStored: z.int().min(0),
  }),
});
type Checkpoint = z.infer<typeof Checkpoint>;

/**
 * Takes a checkpoint's place when a sample has shown that the source's claims are not true: what was finished in that
 * mode until then must never be gone on with.
 */
const Distrust = z.object({
  v: z.literal(1),
  distrusted: z.enum(transferModes),
  reason: z.string(),
});

export const distrust = (distrusted: TransferMode, reason: string): z.infer<typeof Distrust> => ({
  v: 1,
  distrusted,
  reason,
});

export type TransferIdentity = {
  readonly mode: TransferMode;
  readonly diskKey: string;
  readonly sizeBytes: number;
  readonly previous: string | undefined;
};

export type CheckpointWriter = {
  /** Adds leaves of the table that are finished since the last call. */
  readonly write: (
    finished: readonly number[],
    stats: DiskStats,
    signal: AbortSignal,
  ) => Promise<Record<string, unknown>>;
};

const inlineName = "inline-transfer-checkpoint";
/** A catalog's item may have 400 KiB, with all else that it says. */
const inlineBytesMax = 48 * 1024;
const partLeavesMax = 4096;

export function createCheckpointWriter(
  repository: Repository,
  session: Session,
  identity: TransferIdentity,
  table: LeafTable,
  resumed: ResumedTransfer | undefined,
): CheckpointWriter {
  const parts = [...(resumed?.parts ?? [])];
  let inline: number[] = [...(resumed?.inline ?? [])];
  return {
    write: async (finished, stats, signal) => {
      inline.push(...finished);
      let newest = encodePart(table, inline);
      while (newest.length > inlineBytesMax) {
        const part = encodePart(table, inline.slice(0, partLeavesMax));
        parts.push(
          await session.objects.putNew("checkpoints", "transfer-checkpoint", part, { signal }),
        );
        inline = inline.slice(partLeavesMax);
        newest = encodePart(table, inline);
      }
      const sealed = repository.objects.seal(inlineName, "transfer-checkpoint", newest);
      const checkpoint: Checkpoint = {
        v: 1,
        mode: identity.mode,
        sessionId: session.sessionId,
        diskKey: identity.diskKey,
        sizeBytes: identity.sizeBytes,
        ...(identity.previous !== undefined && { previous: identity.previous }),
        parts: [...parts],
        inline: Buffer.from(sealed).toString("base64"),
        stats,
      };
      return checkpoint;
    },
  };
}

export type ResumedTransfer = {
  readonly parts: readonly string[];
  readonly inline: readonly number[];
  readonly stats: DiskStats;
};

/**
 * Fills the table. Undefined when the checkpoint is of another transfer: then everything starts over. Fails with `object.corrupt`,
 * `object.not-found`, and with `changes.unknown` when an earlier attempt found that this mode believes too much.
 */
export async function resumeTransfer(
  repository: Repository,
  session: Session,
  identity: TransferIdentity,
  table: LeafTable,
  checkpoint: unknown,
  signal: AbortSignal,
): Promise<ResumedTransfer | undefined> {
  const distrusted = Distrust.safeParse(checkpoint).data;
  const parsed = Checkpoint.safeParse(checkpoint);
  const doubt = (mode: TransferMode): number => transferModes.indexOf(mode);
  const doubtMin =
    distrusted === undefined
      ? doubt(parsed.data?.mode ?? "incremental")
      : doubt(distrusted.distrusted) + 1;
  if (doubt(identity.mode) < doubtMin) {
    throw new Failure("changes.unknown", {
      message: distrusted?.reason ?? "an earlier attempt of this transfer had to read more",
    });
  }
  if (!parsed.success || parsed.data.mode !== identity.mode) return undefined;
  const { diskKey, sizeBytes, previous, parts, inline, stats } = parsed.data;
  if (
    parsed.data.sessionId !== session.sessionId ||
    diskKey !== identity.diskKey ||
    sizeBytes !== identity.sizeBytes ||
    previous !== identity.previous
  ) {
    return undefined;
  }
  const { objects } = repository;
  // Everything is opened before anything counts.
  const opened = [objects.open(inlineName, "transfer-checkpoint", Buffer.from(inline, "base64"))];
  for (const part of parts) {
    opened.push(await objects.get(part, "transfer-checkpoint", { signal }));
  }
  const [newest] = opened.map((part) => decodePart(table, part));
  return { parts, inline: newest ?? [], stats };
}

function encodePart(table: LeafTable, indexes: readonly number[]): Uint8Array {
  const rows = createLeafTable(indexes.length);
  const writer = createByteWriter(4096).u8(1).u32(indexes.length);
  for (const [row, index] of indexes.entries()) {
    writer.u32(index);
    const ref = table.get(index);
    if (ref !== undefined) rows.set(row, ref);
  }
  rows.encode(writer);
  return writer.done();
}

function decodePart(table: LeafTable, bytes: Uint8Array): readonly number[] {
  const reader = createByteReader(bytes, "transfer checkpoint");
  reader.u8();
  const count = reader.count(reader.u32(), 4);
  const indexes = Array.from({ length: count }, reader.u32);
  const rows = decodeLeafTable(reader, count);
  reader.end();
  for (const [row, index] of indexes.entries()) {
    const ref = rows.get(row);
    if (ref !== undefined && index < table.count) table.set(index, ref);
  }
  return indexes;
}
