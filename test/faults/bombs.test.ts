import { zstdCompressSync } from "node:zlib";
import { systemRandom } from "@holdfast/shared/ports/random";
import { openRecord, sealStored } from "@holdfast/shared/repository/chunk/sealed-chunk";
import { createByteWriter } from "@holdfast/shared/repository/format/bytes";
import { encodeHeader } from "@holdfast/shared/repository/format/header";
import { openObject } from "@holdfast/shared/repository/format/sealed-object";
import { encrypt, zeroNonce } from "@holdfast/shared/repository/keys/aead";
import { type RepositorySecrets, sealKey } from "@holdfast/shared/repository/keys/secrets";
import { expect, test } from "vitest";

/** T22: little that inflates to much, sealed by somebody who holds a key; without one, nothing is inflated at all. */
const secrets: RepositorySecrets = {
  repositoryId: new Uint8Array(16).fill(1),
  identity: new Uint8Array(32).fill(2),
  masters: new Map([[1, new Uint8Array(32).fill(3)]]),
  activeEpoch: 1,
};
const name = "metadata/00";
const bombBytes = 256 * 2 ** 20;
const bomb = zstdCompressSync(new Uint8Array(bombBytes));

/** As `sealObject` does it, but for what it says of its length. */
function seal(encoding: number, claimedLength: number, data: Uint8Array): Uint8Array {
  const salt = systemRandom(32);
  const { key, commitment } = sealKey(secrets, 1, "object", salt);
  const open = Buffer.concat([encodeHeader("vm-metadata", 1), salt, commitment]);
  const aad = Buffer.concat([open, secrets.repositoryId, Buffer.from(name)]);
  const body = createByteWriter(8 + data.length)
    .u8(encoding)
    .u32(claimedLength)
    .bytes(data)
    .done();
  return Buffer.concat([open, encrypt(key, zeroNonce, aad, body)]);
}

const open = (bytes: Uint8Array): Uint8Array =>
  openObject({ secrets, type: "vm-metadata", name, bytes });

test("T22: an object that inflates to more than it says, or says more than any may have, is refused without the memory", () => {
  expect(bomb.length).toBeLessThan(32 * 1024);
  expect(open(seal(1, 1000, zstdCompressSync(new Uint8Array(1000)))).length).toBe(1000);
  const before = process.memoryUsage().rss;
  for (const claimed of [0, 1, 1000, 2 ** 20, 512 * 2 ** 20 + 1, 2 ** 32 - 1]) {
    expect(() => open(seal(1, claimed, bomb)), `says ${claimed}`).toThrow(
      expect.objectContaining({ code: "object.corrupt" }),
    );
  }
  for (const [encoding, claimed] of [
    [0, 2000],
    [0, 999],
    [2, 1000],
  ] as const) {
    expect(() => open(seal(encoding, claimed, new Uint8Array(1000)))).toThrow(
      expect.objectContaining({ code: "object.corrupt" }),
    );
  }
  expect(process.memoryUsage().rss - before).toBeLessThan(bombBytes / 2);
});

test("T22: a record of a pack that inflates to more than its length is refused without the memory", () => {
  const packId = systemRandom(16);
  const { key: packKey } = sealKey(secrets, 1, "pack", packId);
  const place = { repositoryId: secrets.repositoryId, packId, packKey, offset: 64 };
  const before = process.memoryUsage().rss;
  for (const rawLength of [bomb.length + 1, 64 * 1024, 2 ** 20]) {
    const [ciphertext, tag] = sealStored(place, bomb, rawLength);
    const sealed = Buffer.concat([ciphertext, tag]);
    expect(() => openRecord(place, sealed, rawLength), `says ${rawLength}`).toThrow(
      expect.objectContaining({ code: "object.corrupt" }),
    );
  }
  expect(process.memoryUsage().rss - before).toBeLessThan(bombBytes / 2);
});
