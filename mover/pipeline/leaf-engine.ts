import { strict as assert } from "node:assert";
import { Failure } from "@holdfast/shared/domain/failure";
import type { RandomBytes } from "@holdfast/shared/ports/random";
import { createCutter, cutRule, isZero } from "@holdfast/shared/repository/chunk/cutter";
import { createKeyedHash, idBytes } from "@holdfast/shared/repository/chunk/keyed-hash";
import { createDigests, type Placed } from "@holdfast/shared/repository/extent-map/digest";
import {
  decodeLeaf,
  encodeLeaf,
  type LeafEntry,
  leafEntries,
} from "@holdfast/shared/repository/extent-map/leaf";
import { toHex } from "@holdfast/shared/repository/format/bytes";
import { type ChunkPlace, createChunkFinder } from "@holdfast/shared/repository/index/chunk-index";
import { identityKey } from "@holdfast/shared/repository/keys/secrets";
import { createDamagedPlaces } from "@holdfast/shared/repository/pack/damage";
import {
  checkSealedPack,
  createPackBuilder,
  type PackBuilder,
} from "@holdfast/shared/repository/pack/pack";
import type { EngineSetup, FromEngine, ToEngine } from "./leaf-messages.ts";

/**
 * Turns the bytes of one leaf after another into chunks, packs and extent-map leaves; the same code runs in worker threads and, in tests, in
 * place. Cuts, hashes, looks up, compresses, seals, opens again. Packs hold the chunks in disk order and leave when they are full.
 */
export type LeafEngine = {
  /** Fails with `changes.unknown` for a sample that differs, `seal.mismatch` for a pack that doesn't open. */
  readonly handle: (message: ToEngine) => void;
};

export type Reply = (message: FromEngine) => void;

type OpenLeaf = {
  readonly index: number;
  readonly offset: number;
  readonly lengthBytes: number;
  readonly entries: LeafEntry[];
  /** From the cutter and the hash alone; what the leaf says is checked against it. */
  readonly placed: Placed[];
  readonly previous: ReadonlyMap<string, ChunkPlace>;
  readonly ownPacks: Set<string>;
};

export function createLeafEngine(
  setup: EngineSetup & { readonly random: RandomBytes },
  reply: Reply,
): LeafEngine {
  const { secrets, settings } = setup;
  const chunkHash = createKeyedHash(identityKey(secrets, "chunk-id"));
  const digests = createDigests(secrets);
  const findIndexed = setup.index === undefined ? undefined : createChunkFinder(setup.index);
  // Chunks of packs that are not in the store yet; only this engine may refer to them.
  const pending = new Map<string, ChunkPlace>();
  const pendingOfPack = new Map<string, string[]>();
  const packRoomBytes = settings.packBytes + settings.packBytes / 64 + 4096;
  const sample = { placed: Buffer.alloc(settings.chunkBytesMax), length: 0 };
  let leaf: OpenLeaf | undefined;
  let pack: PackBuilder | undefined;
  // Memory of packs that were uploaded, for the next ones. None is ever dropped: there are as many as were on their way at once.
  const spare: SharedArrayBuffer[] = [];
  let packBytesNew = 0;
  const damaged = createDamagedPlaces(setup.damaged);
  const cutter = createCutter(cutRule(secrets, settings), addChunk);

  function addChunk(offset: number, bytes: Uint8Array): void {
    assert(leaf !== undefined);
    const id = chunkHash.hash(bytes);
    leaf.placed.push({ offset, length: bytes.length, id });
    const key = Buffer.from(id.buffer, id.byteOffset, idBytes).toString("latin1");
    const place =
      leaf.previous.get(key) ?? pending.get(key) ?? findUsable(id) ?? store(key, id, bytes);
    const packId = toHex(place.packId);
    if (pendingOfPack.has(packId)) leaf.ownPacks.add(packId);
    leaf.entries.push({
      offset: offset - leaf.offset,
      length: bytes.length,
      id,
      pack: { packId: place.packId, epoch: place.epoch },
      packOffset: place.offset,
      storedLength: place.storedLength,
    });
  }

  function findUsable(id: Uint8Array): ChunkPlace | undefined {
    const place = findIndexed?.(id);
    return place === undefined || isForbidden(place) ? undefined : place;
  }

  function isForbidden({ packId, offset }: ChunkPlace): boolean {
    if (setup.condemned.size > 0 && setup.condemned.has(toHex(packId))) return true;
    return damaged.has(packId, offset);
  }

  function store(key: string, id: Uint8Array, bytes: Uint8Array): ChunkPlace {
    if (pack !== undefined && pack.sizeBytes() + bytes.length > settings.packBytes) sealPack();
    if (pack === undefined) {
      pack = createPackBuilder({
        kind: "data-pack",
        secrets,
        packId: Buffer.concat([setup.sessionId, setup.random(8)]),
        room: spare.pop() ?? new SharedArrayBuffer(packRoomBytes),
      });
      pendingOfPack.set(toHex(pack.packId), []);
    }
    const { offset, storedLength } = pack.append("chunk", id, bytes);
    packBytesNew += bytes.length;
    const place = { packId: pack.packId, epoch: pack.epoch, offset, storedLength };
    pending.set(key, place);
    pendingOfPack.get(toHex(pack.packId))?.push(key);
    return place;
  }

  function sealPack(): void {
    if (pack === undefined) return;
    const sealed = pack.seal();
    if (setup.checkSealed) checkSealedPack(sealed, { secrets, chunkHash });
    assert(sealed.bytes.byteOffset === 0);
    reply({
      type: "pack",
      packId: sealed.packId,
      epoch: sealed.epoch,
      buffer: sealed.bytes.buffer,
      length: sealed.bytes.length,
      records: sealed.records,
      bytesNew: packBytesNew,
    });
    pack = undefined;
    packBytesNew = 0;
  }

  function begin(message: ToEngine & { type: "leaf" }): void {
    assert(leaf === undefined);
    const previous = new Map<string, ChunkPlace>();
    const entries: LeafEntry[] = [];
    const placed: Placed[] = [];
    if (message.previous !== undefined) {
      const kept = new Set(message.previous.kept);
      let position = 0;
      for (const entry of leafEntries(decodeLeaf(message.previous))) {
        const place = { ...entry.pack, offset: entry.packOffset, storedLength: entry.storedLength };
        if (!isForbidden(place)) {
          previous.set(Buffer.from(entry.id).toString("latin1"), place);
        }
        if (kept.has(position)) {
          entries.push(entry);
          placed.push({
            offset: message.offset + entry.offset,
            length: entry.length,
            id: entry.id,
          });
        }
        position += 1;
      }
    }
    const { index, offset, lengthBytes } = message;
    leaf = { index, offset, lengthBytes, entries, placed, previous, ownPacks: new Set() };
  }

  function end(): void {
    cutter.end();
    assert(leaf !== undefined);
    const { index, lengthBytes, placed } = leaf;
    const entries = leaf.entries.sort((left, right) => left.offset - right.offset);
    const stored =
      entries.length === 0
        ? undefined
        : { ...encodeLeaf({ index, lengthBytes, entries }), digest: digests.leaf(leaf, placed) };
    reply({ type: "leaf", index, stored, ownPacks: [...leaf.ownPacks] });
    leaf = undefined;
  }

  function check(message: ToEngine & { type: "check" }): void {
    const bytes = new Uint8Array(message.buffer, 0, message.length);
    if (message.isFirst) sample.length = 0;
    let isSame: boolean;
    if (message.id === undefined) {
      isSame = isZero(bytes);
    } else {
      assert(sample.length + bytes.length <= sample.placed.length);
      sample.placed.set(bytes, sample.length);
      sample.length += bytes.length;
      isSame =
        !message.isLast ||
        Buffer.compare(chunkHash.hash(sample.placed.subarray(0, sample.length)), message.id) === 0;
    }
    if (isSame) return;
    throw new Failure("changes.unknown", {
      message: `the source called bytes near ${message.offset} ${message.claim}, but they are not what the last point has there; the whole disk must be read`,
      offset: message.offset,
      claim: message.claim,
    });
  }

  function uploaded(message: ToEngine & { type: "uploaded" }): void {
    for (const key of pendingOfPack.get(message.packId) ?? []) pending.delete(key);
    pendingOfPack.delete(message.packId);
    spare.push(message.buffer);
  }

  return {
    handle: (message) => {
      switch (message.type) {
        case "leaf":
          return begin(message);
        case "data":
          cutter.push(message.offset, new Uint8Array(message.buffer, 0, message.length));
          return reply({ type: "buffer", buffer: message.buffer, dataBytes: message.length });
        case "check":
          check(message);
          return reply({ type: "buffer", buffer: message.buffer, dataBytes: 0 });
        case "leaf-end":
          return end();
        case "flush":
          sealPack();
          return reply({ type: "flushed" });
        case "uploaded":
          return uploaded(message);
        default:
          return message satisfies never;
      }
    },
  };
}
