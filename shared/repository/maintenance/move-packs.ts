import { strict as assert } from "node:assert";
import { isFailure } from "../../domain/failure.ts";
import type { CallOptions } from "../../ports/object-store.ts";
import { createKeyedHash, type KeyedHash } from "../chunk/keyed-hash.ts";
import { openStored } from "../chunk/sealed-chunk.ts";
import { corrupt, freeBytes, toHex } from "../format/bytes.ts";
import { encodeIndexSegment, type IndexedPack } from "../index/index-segment.ts";
import { identityKey } from "../keys/secrets.ts";
import { putOwn } from "../objects.ts";
import {
  checkSealedPack,
  createPackBuilder,
  openPackFooter,
  openPackRecord,
  type PackBuilder,
  type PackFooter,
  type PackKind,
  type PackRecords,
  packHeadBytes,
  packName,
  type RecordKind,
  recordId,
  recordKinds,
} from "../pack/pack.ts";
import {
  encodeRelocation,
  type RelocationRow,
  readRelocation,
  relocationName,
} from "../pack/relocations.ts";
import type { Repository } from "../repository.ts";
import type { CollectorSession } from "./collector-session.ts";
import { asDamage } from "./mark.ts";
import type { NeededRecords, RelocationEdges } from "./needed-records.ts";
import { movedIndexChunks } from "./safety.ts";

export type Mover = {
  readonly repository: Repository;
  readonly collector: CollectorSession;
  readonly needed: NeededRecords;
  readonly edges: RelocationEdges;
  /** Whether a pack is to go itself, or is not there. */
  readonly isGoing: (packId: string) => boolean;
  readonly onMoved: (packs: number) => void;
};

export type Moved = {
  /** Nothing of them is needed where it was: in hexadecimal. */
  readonly emptied: string[];
  records: number;
  /** Stored bytes of records that were sealed again. */
  bytes: number;
  packsWritten: number;
  bytesWritten: number;
  relocations: number;
  bytesRead: number;
  /** They stay as they are: not all that is needed of them opens. */
  readonly damaged: { readonly packId: string; readonly reason: string }[];
};

export function nothingMoved(): Moved {
  return {
    emptied: [],
    records: 0,
    bytes: 0,
    packsWritten: 0,
    bytesWritten: 0,
    relocations: 0,
    bytesRead: 0,
    damaged: [],
  };
}

/** A pack of which the needed records are being moved. */
type Source = {
  readonly packId: string;
  /** Where records lie already that an earlier run moved, or a repair found. */
  readonly rows: RelocationRow[];
  /** New packs that are not in the store yet. */
  readonly waitsFor: Set<PackBuilder>;
  isCopied: boolean;
};

type Open = { readonly builder: PackBuilder; readonly sources: Set<Source> };

/**
 * Moves what is needed of these packs into new ones: opens each record, seals what is under the seal again without inflating it, opens the new
 * pack as readers will, puts it; then puts a relocation for each old pack of which all that is needed has another place; then what the index
 * shall find there. Nothing is removed. Whoever dies in between has only written what a collection takes away again.
 */
export async function movePacks(
  o: Mover,
  /** In the order in which their records are to lie. */
  packIds: readonly string[],
  moved: Moved,
  options: CallOptions,
): Promise<void> {
  const { secrets, settings } = o.repository;
  const chunkHash = createKeyedHash(identityKey(secrets, "chunk-id"));
  const open = new Map<PackKind, Open>();
  const forIndex: IndexedPack[] = [];
  let disk: string | undefined;

  async function flush(kind: PackKind): Promise<void> {
    const its = open.get(kind);
    if (its === undefined) return;
    open.delete(kind);
    const pack = its.builder.seal();
    checkSealedPack(pack, { secrets, chunkHash });
    await putOwn(o.repository.store, packName(pack.packId), pack.bytes, options);
    moved.packsWritten += 1;
    moved.bytesWritten += pack.bytes.length;
    const { packId, epoch, records } = pack;
    if (kind === "data-pack") forIndex.push({ packId, epoch, records });
    for (const source of its.sources) {
      source.waitsFor.delete(its.builder);
      if (source.isCopied && source.waitsFor.size === 0) await finish(source);
    }
    await o.collector.alive();
  }

  async function flushAll(): Promise<void> {
    for (const kind of [...open.keys()]) await flush(kind);
  }

  /** All that is needed of it has another place in the store now. */
  async function finish({ packId, rows }: Source): Promise<void> {
    const old = Buffer.from(packId, "hex");
    const name = relocationName(old, Buffer.from(o.collector.newId(), "hex"));
    const plain = encodeRelocation({ packId: old, rows });
    await o.repository.objects.put(name, "relocation", plain, options);
    moved.relocations += 1;
    moved.emptied.push(packId);
  }

  function builderFor(kind: PackKind): Open {
    const known = open.get(kind);
    if (known !== undefined) return known;
    const packId = Buffer.from(o.collector.newId(), "hex");
    const room = new SharedArrayBuffer(settings.packBytes + 64 * 1024);
    const its = {
      builder: createPackBuilder({ kind, secrets, packId, room }),
      sources: new Set<Source>(),
    };
    open.set(kind, its);
    return its;
  }

  async function copy(source: Source, pack: OpenedPack, offsets: readonly number[]): Promise<void> {
    const { footer } = pack;
    for (const offset of offsets) {
      const { id, kind, rawLength, stored } = openRow(o, pack, offset);
      if ((open.get(footer.kind)?.builder.sizeBytes() ?? 0) + stored.length > settings.packBytes) {
        await flush(footer.kind);
      }
      const { builder, sources } = builderFor(footer.kind);
      const at = builder.appendStored(kind, id, stored, rawLength);
      freeBytes(stored);
      sources.add(source);
      source.waitsFor.add(builder);
      source.rows.push({ offset, to: { packId: builder.packId, epoch: builder.epoch, ...at } });
      moved.records += 1;
      moved.bytes += at.storedLength;
    }
    source.isCopied = true;
    assert(source.waitsFor.size > 0);
  }

  for (const [number, packId] of packIds.entries()) {
    await o.collector.alive();
    o.onMoved(number);
    const needed = o.needed.of(packId);
    if (needed.size === 0) {
      moved.emptied.push(packId);
      continue;
    }
    const known = await placesKnown(o, packId, options);
    if (known.isWhole) {
      moved.emptied.push(packId);
      continue;
    }
    const itsDisk = o.needed.diskOf(packId);
    // Records of one pack are of one disk.
    if (disk !== itsDisk) await flushAll();
    disk = itsDisk;
    const source: Source = {
      packId,
      rows: [...known.rows.values()],
      waitsFor: new Set(),
      isCopied: false,
    };
    const missing = [...needed.keys()]
      .filter((offset) => !known.rows.has(offset))
      .sort((left, right) => left - right);
    if (missing.length === 0) {
      await finish(source);
      continue;
    }
    const pack = await openPack(o, packId, missing, chunkHash, options).catch((error: unknown) => {
      if (!isFailure(error, "object.corrupt")) throw error;
      moved.damaged.push({ packId, reason: error.message });
      return undefined;
    });
    if (pack === undefined) continue;
    moved.bytesRead += pack.bytes.length;
    await copy(source, pack, missing);
  }
  await flushAll();
  await putIndex(o, forIndex, options);
}

type OpenedPack = {
  readonly packId: Uint8Array;
  readonly bytes: Uint8Array;
  readonly footer: PackFooter;
};

/** With these records opened, inflated and hashed. Fails with `object.corrupt`. */
async function openPack(
  { repository }: Mover,
  packHex: string,
  offsets: readonly number[],
  chunkHash: KeyedHash,
  options: CallOptions,
): Promise<OpenedPack> {
  const { secrets, store } = repository;
  const packId = Buffer.from(packHex, "hex");
  const name = packName(packId);
  const bytes = await store.get(name, options).catch((error: unknown) => {
    // It was listed a moment ago, and only this session removes it.
    throw asDamage(error, name);
  });
  const head = bytes.subarray(0, packHeadBytes);
  const footer = openPackFooter({ secrets, packId, head, tail: bytes, sizeBytes: bytes.length });
  const { records, packKey } = footer;
  for (const offset of offsets) {
    const index = indexAt(records, offset, name);
    openPackRecord({ secrets, chunkHash, packKey, packId, pack: bytes, records, index });
  }
  return { packId, bytes, footer };
}

function indexAt(records: PackRecords, offset: number, name: string): number {
  const index = records.offsets.indexOf(offset);
  if (index < 0) throw corrupt(`${name} has no record at ${offset}`, { key: name });
  return index;
}

/** Of a pack of which it was opened already. */
function openRow(
  { repository }: Mover,
  { packId, bytes, footer }: OpenedPack,
  offset: number,
): {
  readonly id: Uint8Array;
  readonly kind: RecordKind;
  readonly rawLength: number;
  readonly stored: Uint8Array;
} {
  const { records, packKey } = footer;
  const index = indexAt(records, offset, packName(packId));
  const kind = kindNames[records.kinds[index] ?? 0];
  assert(kind !== undefined);
  const rawLength = records.rawLengths[index] ?? 0;
  const sealed = bytes.subarray(offset, offset + (records.storedLengths[index] ?? 0));
  const place = { repositoryId: repository.secrets.repositoryId, packId, packKey, offset };
  const stored = openStored(place, sealed, rawLength);
  return { id: recordId(records, index), kind, rawLength, stored };
}

const kindNames = Object.keys(recordKinds) as readonly RecordKind[];

/** Of what is needed: where relocations say that it lies besides, in packs that are there and stay. */
async function placesKnown(
  o: Mover,
  packId: string,
  options: CallOptions,
): Promise<{
  readonly rows: ReadonlyMap<number, RelocationRow>;
  /** One relocation alone has all. */
  readonly isWhole: boolean;
}> {
  const needed = o.needed.of(packId);
  const found = new Map<number, RelocationRow>();
  const there = new Map<string, boolean>();
  async function isThere(id: Uint8Array): Promise<boolean> {
    const hex = toHex(id);
    const known = there.get(hex);
    if (known !== undefined) return known;
    const its = !o.isGoing(hex) && (await o.repository.store.head(packName(id), options));
    there.set(hex, Boolean(its));
    return Boolean(its);
  }
  let isWhole = false;
  for (const [name, { from }] of o.edges) {
    if (from !== packId) continue;
    const { rows } = await readRelocation(o.repository, name, options);
    let count = 0;
    for (const row of rows) {
      if (!needed.has(row.offset) || !(await isThere(row.to.packId))) continue;
      found.set(row.offset, row);
      count += 1;
    }
    if (count === needed.size) isWhole = true;
  }
  return { rows: found, isWhole };
}

async function putIndex(
  { repository, collector }: Mover,
  packs: readonly IndexedPack[],
  options: CallOptions,
): Promise<void> {
  for (let at = 0; at < packs.length; ) {
    const some: IndexedPack[] = [];
    for (let chunks = 0; at < packs.length && chunks < movedIndexChunks; at += 1) {
      const pack = packs[at];
      if (pack === undefined) break;
      some.push(pack);
      chunks += pack.records.count;
    }
    const name = `index/${collector.newId()}`;
    await repository.objects.put(name, "index-segment", encodeIndexSegment(some), options);
  }
}
