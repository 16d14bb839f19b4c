import { strict as assert } from "node:assert";
import { createKeyedHash } from "@holdfast/shared/repository/chunk/keyed-hash";
import { freeBytes } from "@holdfast/shared/repository/format/bytes";
import type { SealedType } from "@holdfast/shared/repository/format/sealed-object";
import { identityKey } from "@holdfast/shared/repository/keys/secrets";
import { putOwn } from "@holdfast/shared/repository/objects";
import {
  checkSealedPack,
  createPackBuilder,
  type PackBuilder,
  type PackKind,
  packName,
} from "@holdfast/shared/repository/pack/pack";
import type { RecordLocation } from "@holdfast/shared/repository/pack/relocations";
import type { Repository } from "@holdfast/shared/repository/repository";
import { sessionOfRoot } from "@holdfast/shared/repository/session/session-state";
import type { Session } from "@holdfast/shared/repository/session/sessions";
import type { ChunkOpeners } from "./chunk-openers.ts";
import { isUnreadable } from "./prepare-leaf.ts";
import type { Found, Wanted } from "./repair-search.ts";
import type { BadRecord } from "./verify-points.ts";

/**
 * Repair from another copy of the same repository, such as one that the storage replicated: nothing of it is believed before it was opened with the
 * repository's keys under the name that it has.
 */
type Copying = {
  readonly repository: Repository;
  readonly copy: Repository;
  readonly signal: AbortSignal;
};

const types: Readonly<Record<string, SealedType>> = {
  disks: "disk-record",
  metadata: "vm-metadata",
  points: "recovery-point",
  sessions: "session",
};

/** Puts back which of these objects are missing and whole in the copy; returns their names. What is there, damaged or not, stays. */
export async function putBack(
  o: Copying & { readonly names: readonly string[]; readonly isDryRun: boolean },
): Promise<readonly string[]> {
  const done: string[] = [];
  for (const name of await withSessions(o)) {
    const type = types[name.slice(0, name.indexOf("/"))];
    const options = { signal: o.signal };
    if (type === undefined || (await o.repository.store.head(name, options)) !== undefined)
      continue;
    try {
      const bytes = await o.copy.store.get(name, options);
      o.copy.objects.open(name, type, bytes);
      if (!o.isDryRun) await putOwn(o.repository.store, name, bytes, options);
      done.push(name);
    } catch (error) {
      if (!isUnreadable(error)) throw error;
    }
  }
  return done;
}

/** A root needs what its session says of it, too. */
async function withSessions(o: Copying & { readonly names: readonly string[] }): Promise<string[]> {
  const names = [...o.names];
  for (const name of o.names) {
    const its = name.startsWith("points/") ? sessionOfRoot(name) : undefined;
    if (its === undefined) continue;
    const folder = `sessions/${its.sessionId}/`;
    for await (const { key } of o.copy.store.list(folder, { signal: o.signal })) names.push(key);
  }
  return names;
}

/** Seals records anew, from where they are whole in the copy, into packs of the session. Without a session nothing is written, and finds lie in the copy. */
export async function copyRecords(
  o: Copying & {
    readonly session: Session | undefined;
    readonly openers: ChunkOpeners;
    readonly wanted: readonly Wanted[];
  },
): Promise<readonly Found[]> {
  const found: Found[] = [];
  const packs = createPacks(o);
  for (const wanted of o.wanted) {
    for (const place of wanted.places) {
      const plain = await openInCopy(o, place);
      if (plain === undefined) continue;
      found.push({ wanted, at: packs === undefined ? place : await packs.add(place, plain) });
      freeBytes(plain);
      break;
    }
  }
  await packs?.end();
  return found;
}

async function openInCopy(
  o: Copying & { readonly openers: ChunkOpeners },
  place: BadRecord,
): Promise<Uint8Array | undefined> {
  const { packId, epoch, offset, storedLength } = place;
  try {
    const range = { offset, length: storedLength };
    const bytes = await o.copy.store.getRange(packName(packId), range, { signal: o.signal });
    const opened = await o.openers.open({ packId, epoch, offset, bytes, chunks: [place] });
    return opened.bytes;
  } catch (error) {
    if (!isUnreadable(error)) throw error;
    return undefined;
  }
}

function createPacks({
  repository,
  session,
  signal,
}: Copying & { readonly session: Session | undefined }) {
  if (session === undefined) return undefined;
  const { secrets, settings, store } = repository;
  const chunkHash = createKeyedHash(identityKey(secrets, "chunk-id"));
  const open = new Map<PackKind, PackBuilder>();

  async function close(kind: PackKind): Promise<void> {
    const pack = open.get(kind);
    if (pack === undefined) return;
    open.delete(kind);
    const sealed = pack.seal();
    checkSealedPack(sealed, { secrets, chunkHash });
    await putOwn(store, packName(sealed.packId), sealed.bytes, { signal });
  }

  function packOf(kind: PackKind): PackBuilder {
    const room = new SharedArrayBuffer(settings.packBytes);
    const packId = session?.newId();
    assert(packId !== undefined);
    const pack = open.get(kind) ?? createPackBuilder({ kind, secrets, packId, room });
    open.set(kind, pack);
    return pack;
  }

  return {
    add: async (place: BadRecord, plain: Uint8Array): Promise<RecordLocation> => {
      const kind = place.kind === "chunk" ? "data-pack" : "metadata-pack";
      const size = open.get(kind)?.sizeBytes() ?? 0;
      if (size + plain.length > settings.packBytes) await close(kind);
      const { packId, epoch, append } = packOf(kind);
      return { packId, epoch, ...append(place.kind, place.id, plain) };
    },
    end: async (): Promise<void> => {
      await close("data-pack");
      await close("metadata-pack");
    },
  };
}
