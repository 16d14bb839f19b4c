import { argon2Sync, createDecipheriv, createHmac, hkdfSync } from "node:crypto";
import { zstdDecompressSync } from "node:zlib";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import { createKeyedHash } from "@holdfast/shared/repository/chunk/keyed-hash";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { expect, test } from "vitest";
import { createMemoryReader } from "./memory-disk.ts";
import { writePieces } from "./test-data.ts";
import {
  createTestRepository,
  newPoint,
  passphrase,
  transfer,
  writePoint,
} from "./test-repository.ts";

/*
 * A second reader, written from docs/repository-format.md alone: nothing of shared/repository is used to read but BLAKE3.
 * It fails when the format changes without its document, or a version.
 */
const utf8 = (text: string): Buffer => Buffer.from(text, "utf8");
const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};
const u64 = (value: number): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
};
const hkdf = (secret: Uint8Array, salt: Uint8Array, info: string, length: number): Buffer =>
  Buffer.from(hkdfSync("sha256", secret, salt, info, length));

const b3 = (key: Buffer, bytes: Uint8Array): Buffer =>
  Buffer.from(createKeyedHash(key).hash(bytes));

function aesOpen(key: Buffer, nonce: Buffer, aad: Buffer, sealed: Buffer): Buffer {
  const decipher = createDecipheriv("aes-256-gcm", key, nonce);
  decipher.setAAD(aad);
  decipher.setAuthTag(sealed.subarray(-16));
  return Buffer.concat([decipher.update(sealed.subarray(0, -16)), decipher.final()]);
}

async function openReader(store: ObjectStore, word: string) {
  const get = async (name: string): Promise<Buffer> => Buffer.from(await store.get(name));
  const config = await get("config");
  const json = JSON.parse(config.subarray(20, 20 + config.readUInt32LE(16)).toString("utf8"));
  const repositoryId = Buffer.from(json.repositoryId, "hex");
  let keyName = "";
  for await (const { key } of store.list("keys/")) keyName = key;
  const wrapped = await get(keyName);
  const epoch = wrapped.readUInt32LE(12);
  const jsonEnd = 20 + wrapped.readUInt32LE(16);
  const { method } = JSON.parse(wrapped.subarray(20, jsonEnd).toString("utf8"));
  // Epochs, then the public key, then the commitment.
  const commitmentAt = jsonEnd + 4 + 4 * wrapped.readUInt32LE(jsonEnd) + 32;
  const sealedAt = commitmentAt + 32;
  const hash = argon2Sync("argon2id", {
    message: word.normalize("NFC"),
    nonce: Buffer.from(method.salt, "hex"),
    memory: method.memoryKiB,
    passes: method.passes,
    parallelism: 1,
    tagLength: 32,
  });
  const both = hkdf(hash, repositoryId, "holdfast/1/wrap", 64);
  expect(both.subarray(32).equals(wrapped.subarray(commitmentAt, sealedAt))).toBe(true);
  const aad = Buffer.concat([wrapped.subarray(0, sealedAt), repositoryId, utf8(keyName)]);
  const sealed = wrapped.subarray(sealedAt, -64);
  const secret = aesOpen(both.subarray(0, 32), Buffer.alloc(12), aad, sealed);
  // A private key, the identity, and one epoch.
  const identity = secret.subarray(32, 64);
  expect([secret.readUInt32LE(64), secret.readUInt32LE(68)]).toEqual([1, epoch]);
  const master = secret.subarray(72, 104);
  const named = (purpose: string): Buffer =>
    hkdf(identity, repositoryId, `holdfast/1/${purpose}`, 32);
  const mac = createHmac("sha256", named("config")).update(config.subarray(0, -32)).digest();
  expect(mac.equals(config.subarray(-32))).toBe(true);

  async function sealedObject(name: string): Promise<Buffer> {
    const bytes = await get(name);
    const info = `holdfast/1/object/${json.repositoryId}/${epoch}`;
    const key = hkdf(master, bytes.subarray(16, 48), info, 64);
    const bound = Buffer.concat([bytes.subarray(0, 80), repositoryId, utf8(name)]);
    const body = aesOpen(key.subarray(0, 32), Buffer.alloc(12), bound, bytes.subarray(80));
    return body[0] === 1 ? zstdDecompressSync(body.subarray(5)) : body.subarray(5);
  }

  async function record(packId: Buffer, offset: number, stored: number, raw: number) {
    const hex = packId.toString("hex");
    const pack = await get(`packs/${hex.slice(0, 2)}/${hex}`);
    const key = hkdf(master, packId, `holdfast/1/pack/${json.repositoryId}/${epoch}`, 64);
    const nonce = Buffer.concat([u32(offset), Buffer.alloc(8)]);
    const bound = [utf8("HFRECRD1"), repositoryId, packId, u32(offset), u32(raw)];
    const sealed = pack.subarray(offset, offset + stored);
    const data = aesOpen(key.subarray(0, 32), nonce, Buffer.concat(bound), sealed);
    return stored < raw + 16 ? zstdDecompressSync(data) : data;
  }
  return { sealedObject, record, named, settings: json.settings };
}

test("a reader written from the format's document restores a disk", async () => {
  const disk = writePieces(new Uint8Array(700_001), [
    { at: 10_000, length: 300_000, seed: 1 },
    { at: 600_000, length: 100_001, seed: 2 },
  ]);
  const store = createMemoryObjectStore();
  const repository = await createTestRepository(store);
  const { recordKey } = await transfer(repository, createMemoryReader(disk));
  const { rootKey } = await writePoint(repository, newPoint(recordKey));

  const { sealedObject, record, named, settings } = await openReader(store, passphrase);
  const signed: string[] = [];
  for await (const { key: name } of store.list(`sessions/${rootKey.slice(-32, -16)}/`)) {
    const mac = b3(named("name"), utf8(name.slice(0, -32))).subarray(0, 16);
    if (mac.toString("hex") === name.slice(-32)) signed.push(name.slice(26, -48));
  }
  expect(signed).toContain("start-");
  expect(signed).toContain(`end-${rootKey.slice(-16)}-`);
  expect(signed).not.toContain("end-none-");
  const root = JSON.parse((await sealedObject(rootKey)).toString("utf8"));
  expect(JSON.parse((await sealedObject(root.metadataKey)).toString("utf8"))).toMatchObject({
    providerKind: "libvirt",
  });
  const bytes = await sealedObject(root.disks[0].recordKey);
  let at = 1;
  const next = (length: number): Buffer => {
    at += length;
    return bytes.subarray(at - length, at);
  };
  const word = (): number => next(4).readUInt32LE();
  expect(next(next(2).readUInt16LE()).toString()).toBe("vda");
  const size = Number(next(8).readBigUInt64LE());
  expect(word()).toBe(settings.leafBytes);
  const digest = next(32);
  expect(digest.toString("hex")).toBe(root.disks[0].digest);
  next(24);
  const packs = Array.from({ length: word() }, () => next(20).subarray(0, 16));
  const restored = Buffer.alloc(size);
  const leafDigests: Buffer[] = [];
  const leaves = word();
  for (let leaf = 0; leaf < leaves; leaf += 1) {
    const offset = leaf * settings.leafBytes;
    const head = [utf8("HFLEAF1\0"), u64(offset), u64(Math.min(settings.leafBytes, size - offset))];
    const pack = word();
    if (pack !== 0xffff_fffe) {
      const [from = 0, sumStored = 0, sumRaw = 0, stored = 0, raw = 0] = Array.from(
        { length: 5 },
        word,
      );
      next(96);
      // The data packs that the leaf needs, for garbage collection.
      next(12 * word());
      const metadataPack = packs[pack] ?? Buffer.alloc(0);
      const summary = await record(metadataPack, from, sumStored, sumRaw);
      const entries = await record(metadataPack, from + sumStored, stored, raw);
      const count = summary.readUInt32LE(13);
      const cell = (column: number, row: number): number =>
        entries.readUInt32LE(1 + (column * count + row) * 4);
      let place = offset;
      for (let row = 0; row < count; row += 1) {
        place += cell(0, row);
        const length = cell(1, row);
        const packAt = 21 + cell(2, row) * 32;
        const packId = summary.subarray(packAt, packAt + 16);
        const plain = await record(packId, cell(3, row), cell(4, row), length);
        const id = b3(named("chunk-id"), plain);
        expect(id.equals(entries.subarray(1 + count * 20 + row * 32).subarray(0, 32))).toBe(true);
        plain.copy(restored, place);
        head.push(u64(place), u32(length), id);
        place += length;
      }
    }
    leafDigests.push(b3(named("digest"), Buffer.concat(head)));
  }
  const whole = Buffer.concat([utf8("HFDISK1\0"), u64(size), ...leafDigests]);
  expect(b3(named("digest"), whole).equals(digest)).toBe(true);
  expect(Buffer.compare(restored, disk)).toBe(0);
});
