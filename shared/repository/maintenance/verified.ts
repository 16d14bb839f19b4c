import { type Failure, isFailure } from "../../domain/failure.ts";
import type { CallOptions, ObjectStore } from "../../ports/object-store.ts";
import { corrupt, createByteReader, createByteWriter, toHex } from "../format/bytes.ts";
import type { RepositoryObjects } from "../objects.ts";

/**
 * Which packs were read whole and found right, and when: `verified/<random>`, written as a verification goes, so that a killed one is continued
 * and the whole repository is read every so many days. Times are by the verifier's clock and decide nothing but what is read next. An object replaces
 * those that it names. Losing one costs reading its packs again.
 */
export type VerifiedPart = {
  /** Of the run that wrote it, 16 bytes; a run that goes on where another ended keeps that one's. */
  readonly runId: Uint8Array;
  /** Milliseconds since 1970. */
  readonly runStartedAt: number;
  /** The run was to read everything that is stored, so that one which was cut off is worth continuing. */
  readonly isWhole: boolean;
  /** The run read all that it was to read. */
  readonly isLast: boolean;
  /** Ids (16 bytes each) of objects that this one has taken over. */
  readonly replaces: readonly Uint8Array[];
  readonly packs: readonly VerifiedPack[];
};

export type VerifiedPack = {
  readonly packId: Uint8Array;
  /** Hours since 1970. */
  readonly hour: number;
};

export const verifiedFolder = "verified";
const version = 1;
const lastFlag = 1;
const wholeFlag = 2;
const idBytes = 16;
const rowBytes = idBytes + 4;
export const hourMs = 3_600_000;

export function encodeVerified(part: VerifiedPart): Uint8Array {
  const writer = createByteWriter(64 + part.packs.length * rowBytes)
    .u8(version)
    .bytes(part.runId)
    .u64(part.runStartedAt)
    .u8((part.isLast ? lastFlag : 0) | (part.isWhole ? wholeFlag : 0))
    .u32(part.replaces.length);
  for (const id of part.replaces) writer.bytes(id);
  writer.u32(part.packs.length);
  for (const { packId, hour } of part.packs) writer.bytes(packId).u32(hour);
  return writer.done();
}

/** Fails with `object.corrupt`. */
export function decodeVerified(bytes: Uint8Array): VerifiedPart {
  const reader = createByteReader(bytes, "verified list");
  if (reader.u8() !== version) throw corrupt("verified list has an unknown version");
  const runId = reader.take(idBytes);
  const runStartedAt = reader.u64();
  const flags = reader.u8();
  const replacedCount = reader.count(reader.u32(), idBytes);
  const replaces = Array.from({ length: replacedCount }, () => reader.take(idBytes));
  const count = reader.count(reader.u32(), rowBytes);
  const packs = Array.from({ length: count }, () => ({
    packId: reader.take(idBytes),
    hour: reader.u32(),
  }));
  reader.end();
  const isLast = (flags & lastFlag) !== 0;
  const isWhole = (flags & wholeFlag) !== 0;
  return { runId, runStartedAt, isLast, isWhole, replaces, packs };
}

export type VerifyRun = Pick<VerifiedPart, "runId" | "runStartedAt">;

export type Verifications = {
  /** Names that no other object replaces, with what they are: a few hundred at most while runs merge them. */
  readonly current: readonly string[];
  /** Names of what others have taken over: nobody needs them any more. */
  readonly replaced: readonly string[];
  readonly unreadable: ReadonlyMap<string, Failure>;
  /** The newest run over everything, if it did not come to its end. */
  readonly unfinished: VerifyRun | undefined;
};

/** Gives each verified pack to `use`, often several times; the newest counts. Memory: one object at a time. */
export async function readVerified(
  o: { readonly store: ObjectStore; readonly objects: RepositoryObjects },
  use: (pack: VerifiedPack) => void,
  options?: CallOptions,
): Promise<Verifications> {
  const unreadable = new Map<string, Failure>();
  const names: string[] = [];
  const replacedNames = new Set<string>();
  const runs = new Map<string, VerifyRun & { readonly isEnded: boolean }>();
  for await (const { key } of o.store.list(`${verifiedFolder}/`, options)) {
    try {
      const part = decodeVerified(await o.objects.get(key, "verified", options));
      names.push(key);
      for (const id of part.replaces) replacedNames.add(`${verifiedFolder}/${toHex(id)}`);
      const { runId, runStartedAt } = part;
      const isEnded = part.isLast || (runs.get(toHex(runId))?.isEnded ?? false);
      if (part.isWhole) runs.set(toHex(runId), { runId, runStartedAt, isEnded });
      for (const pack of part.packs) use(pack);
    } catch (error) {
      if (isFailure(error, "object.not-found")) continue;
      if (!isFailure(error, "object.corrupt") && !isFailure(error, "repository.epoch-unknown")) {
        throw error;
      }
      unreadable.set(key, error);
    }
  }
  const newest = [...runs.values()].toSorted(
    (left, right) => right.runStartedAt - left.runStartedAt,
  )[0];
  return {
    current: names.filter((name) => !replacedNames.has(name)),
    replaced: names.filter((name) => replacedNames.has(name)),
    unreadable,
    unfinished: newest === undefined || newest.isEnded ? undefined : newest,
  };
}
