import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { isFailure } from "../domain/failure.ts";
import { systemRandom } from "../ports/random.ts";
import { createCutter, cutRule } from "./chunk/cutter.ts";
import { createKeyedHash } from "./chunk/keyed-hash.ts";
import { decodeDiskRecord, emptyLeafTable, encodeDiskRecord } from "./extent-map/disk-record.ts";
import { decodeLeaf, encodeLeaf, leafEntries } from "./extent-map/leaf.ts";
import { defaultSettings } from "./format/settings.ts";
import { decodeIndexSegment, encodeIndexSegment } from "./index/index-segment.ts";
import { identityKey, type RepositorySecrets } from "./keys/secrets.ts";
import { checkSealedPack, createPackBuilder, readPackFooter } from "./pack/pack.ts";

const secrets: RepositorySecrets = {
  repositoryId: new Uint8Array(16).fill(1),
  identity: new Uint8Array(32).fill(2),
  masters: new Map([[1, new Uint8Array(32).fill(3)]]),
  activeEpoch: 1,
};
const chunkHash = createKeyedHash(identityKey(secrets, "chunk-id"));
const rule = cutRule(secrets, defaultSettings);

function noise(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = seed + 1;
  for (let at = 0; at < length; at += 1) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    bytes[at] = (state >>> 16) | 1;
  }
  return bytes;
}

function cut(bytes: Uint8Array, step: number): readonly [number, number][] {
  const found: [number, number][] = [];
  const cutter = createCutter(rule, (offset, chunk) => {
    expect(Buffer.compare(chunk, bytes.subarray(offset, offset + chunk.length))).toBe(0);
    found.push([offset, chunk.length]);
  });
  for (let at = 0; at < bytes.length; at += step) cutter.push(at, bytes.slice(at, at + step));
  cutter.end();
  return found;
}

describe("cutter", () => {
  test("cut points don't depend on how the bytes arrive, and lie within their limits", () => {
    const bytes = noise(5_000_000, 4);
    bytes.fill(0, 1_000_000, 1_400_000);
    const whole = cut(bytes, 8_388_608);
    for (const step of [4096, 65_536, 1_048_576]) expect(cut(bytes, step)).toEqual(whole);
    const lengths = whole.map(([, length]) => length);
    expect(Math.max(...lengths)).toBeLessThanOrEqual(defaultSettings.chunkBytesMax);
    const mean = lengths.reduce((sum, length) => sum + length, 0) / lengths.length;
    expect(mean).toBeGreaterThan(defaultSettings.chunkBytesTarget / 2);
    expect(mean).toBeLessThan(defaultSettings.chunkBytesTarget * 2);
  });

  test("moved data is cut alike after a few chunks, so that it deduplicates", () => {
    const bytes = noise(4_000_000, 5);
    const moved = new Uint8Array(4_000_000 + 3 * 4096);
    moved.set(noise(3 * 4096, 6));
    moved.set(bytes, 3 * 4096);
    const ends = new Set(cut(bytes, 65_536).map(([offset, length]) => offset + length));
    const same = cut(moved, 65_536).filter(([at, length]) => ends.has(at + length - 3 * 4096));
    expect(same.length).toBeGreaterThan(ends.size * 0.7);
  });

  test("known cut points: another rule would end deduplication with what is stored", () => {
    expect(cut(noise(1_000_000, 1), 65_536).map(([, length]) => length / 4096)).toMatchSnapshot();
  });
});

function somePack() {
  const pack = createPackBuilder({
    kind: "data-pack",
    secrets,
    packId: systemRandom(16),
    room: new SharedArrayBuffer(1000),
  });
  const chunks = [noise(9000, 1), new Uint8Array(5000).fill(7), noise(1, 2)];
  for (const chunk of chunks) pack.append("chunk", chunkHash.hash(chunk), chunk);
  return pack.seal();
}

describe("pack", () => {
  test("a sealed pack opens to what went in", () => {
    const pack = somePack();
    checkSealedPack(pack, { secrets, chunkHash });
    expect(readPackFooter({ secrets, ...pack }).records).toEqual(pack.records);
  });

  test("any flipped bit or cut is found before the pack is uploaded", () => {
    const pack = somePack();
    fc.assert(
      fc.property(fc.nat(pack.bytes.length - 1), fc.nat(7), fc.boolean(), (at, bit, isCut) => {
        const bytes = Uint8Array.from(pack.bytes);
        bytes[at] = (bytes[at] ?? 0) ^ (1 << bit);
        const damaged = { ...pack, bytes: isCut ? pack.bytes.subarray(0, at) : bytes };
        expect(() => checkSealedPack(damaged, { secrets, chunkHash })).toThrow(/not uploaded/);
      }),
      { numRuns: 300 },
    );
  });

  test("a chunk that changed between hash and seal is found", () => {
    const pack = createPackBuilder({
      kind: "data-pack",
      secrets,
      packId: systemRandom(16),
      room: new SharedArrayBuffer(1000),
    });
    pack.append("chunk", chunkHash.hash(noise(9000, 1)), noise(9000, 2));
    expect(() => checkSealedPack(pack.seal(), { secrets, chunkHash })).toThrow(/not uploaded/);
  });

  test("pack ids never repeat, and neither does a nonce in a pack", () => {
    const packs = Array.from({ length: 50 }, somePack);
    expect(new Set(packs.map(({ packId }) => Buffer.from(packId).toString("hex"))).size).toBe(50);
    for (const { records } of packs) expect(new Set(records.offsets).size).toBe(records.count);
  });
});

const someLeaf = encodeLeaf({
  index: 7,
  lengthBytes: 65_536,
  entries: [4096, 12_288, 40_960].map((offset, position) => ({
    offset,
    length: 8192,
    id: chunkHash.hash(new Uint8Array([position])),
    pack: { packId: new Uint8Array(16).fill(position >> 1), epoch: 1 },
    packOffset: 64 + position * 9000,
    storedLength: 8000,
  })),
});

function someRecord(): Uint8Array {
  const leaves = emptyLeafTable(300_000, 65_536);
  leaves.set(1, "hole");
  leaves.set(3, {
    packId: new Uint8Array(16).fill(4),
    epoch: 1,
    offset: 64,
    summaryStored: 100,
    summaryRaw: 90,
    entriesStored: 300,
    entriesRaw: 500,
    summaryId: new Uint8Array(32).fill(5),
    entriesId: new Uint8Array(32).fill(6),
    digest: new Uint8Array(32).fill(7),
    packs: [4, 9].map((fill) => ({
      packId: new Uint8Array(16).fill(fill),
      epoch: 1,
      entries: fill,
      storedBytes: 1000 * fill,
    })),
  });
  return encodeDiskRecord({
    diskKey: "vda",
    sizeBytes: 300_000,
    leafBytes: 65_536,
    leaves,
    digest: new Uint8Array(32),
    stats: { bytesRead: 1, bytesNew: 2, bytesStored: 3 },
  });
}

describe("decoders", () => {
  test("decode gives back what encode took", () => {
    const leaf = decodeLeaf(someLeaf);
    const again = encodeLeaf({ ...leaf, entries: [...leafEntries(leaf)] });
    expect(again).toEqual(someLeaf);
    expect(leaf.packs.map(({ entries }) => entries)).toEqual([2, 1]);
    expect(encodeDiskRecord(decodeDiskRecord(someRecord()))).toEqual(someRecord());
    const { packId, epoch, records } = somePack();
    const segment = encodeIndexSegment([{ packId, epoch, records }]);
    expect(decodeIndexSegment(segment)).toEqual([{ packId, epoch, records }]);
  });

  test("hostile bytes end in object.corrupt or an unknown epoch, never in another error or a large allocation", () => {
    const pack = somePack();
    const segment = encodeIndexSegment([pack]);
    const decoders: readonly [Uint8Array, (bytes: Uint8Array) => unknown][] = [
      [someLeaf.summary, (summary) => decodeLeaf({ ...someLeaf, summary })],
      [someLeaf.entries, (entries) => decodeLeaf({ ...someLeaf, entries })],
      [someRecord(), decodeDiskRecord],
      [segment, decodeIndexSegment],
      [pack.bytes, (bytes) => readPackFooter({ secrets, ...pack, bytes })],
    ];
    const edits = fc.array(fc.tuple(fc.nat(400), fc.constantFrom(0, 1, 0x7f, 0x80, 0xff)), {
      minLength: 1,
      maxLength: 4,
    });
    fc.assert(
      fc.property(fc.nat(decoders.length - 1), edits, fc.nat(500), (which, changes, keep) => {
        const [good, decode] = decoders[which] ?? [new Uint8Array(0), decodeDiskRecord];
        const bytes = good.slice(0, keep > 400 ? good.length : keep);
        for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
        try {
          decode(bytes);
        } catch (error) {
          // An epoch is looked up before its key can say whether it was changed.
          const isTold =
            isFailure(error, "object.corrupt") || isFailure(error, "repository.epoch-unknown");
          expect(isTold ? "" : error).toBe("");
        }
      }),
      { numRuns: 3000 },
    );
  });
});
