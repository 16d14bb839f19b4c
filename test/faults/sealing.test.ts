import { zstdCompressSync } from "node:zlib";
import { systemRandom } from "@holdfast/shared/ports/random";
import { createKeyedHash } from "@holdfast/shared/repository/chunk/keyed-hash";
import { identityKey, type RepositorySecrets } from "@holdfast/shared/repository/keys/secrets";
import { checkSealedPack, createPackBuilder } from "@holdfast/shared/repository/pack/pack";
import { expect, test } from "vitest";
import { seededBytes } from "../../mover/pipeline/test-data.ts";

/** R33: one bit goes wrong in the mover's memory, at each place on a chunk's way into a pack. */
const secrets: RepositorySecrets = {
  repositoryId: new Uint8Array(16).fill(1),
  identity: new Uint8Array(32).fill(2),
  masters: new Map([[1, new Uint8Array(32).fill(3)]]),
  activeEpoch: 1,
};
const chunkHash = createKeyedHash(identityKey(secrets, "chunk-id"));
const chunk = seededBytes(20_000, 7);

function flip(bytes: Uint8Array, bit: number): Uint8Array {
  const flipped = Uint8Array.from(bytes);
  const at = Math.floor(bit / 8) % flipped.length;
  flipped[at] = (flipped[at] ?? 0) ^ (1 << (bit % 8));
  return flipped;
}

type Place = "before hash" | "after hash" | "after compress" | "after seal" | "nowhere";

/** As the pipeline does it, but for the bit. */
function sealWith(place: Place, bit: number): void {
  const room = new SharedArrayBuffer(64 * 1024);
  const packId = systemRandom(16);
  const pack = createPackBuilder({ kind: "data-pack", secrets, packId, room });
  const read = place === "before hash" ? flip(chunk, bit) : chunk;
  const id = chunkHash.hash(read);
  const hashed = place === "after hash" ? flip(read, bit) : read;
  if (place === "after compress") {
    pack.appendStored("chunk", id, flip(zstdCompressSync(hashed), bit), hashed.length);
  } else {
    pack.append("chunk", id, hashed);
  }
  const sealed = pack.seal();
  const bytes = place === "after seal" ? flip(sealed.bytes, bit) : sealed.bytes;
  checkSealedPack({ ...sealed, bytes }, { secrets, chunkHash });
}

test.each(["after hash", "after compress", "after seal"] as const)(
  "R33: a bit that flips %s stops the pack before it is uploaded",
  (place) => {
    for (let bit = 0; bit < 400; bit += 1) {
      // Of zstd's frame one bit says only that there is a checksum, and is reserved: all others count.
      const at = bit * 389;
      expect(() => sealWith(place, at), `bit ${at}`).toThrow(/not uploaded/);
    }
  },
);

test("R33: what flips before it is hashed is not found: a known limit, as written in docs/scenarios.md", () => {
  expect(() => sealWith("nowhere", 0)).not.toThrow();
  expect(() => sealWith("before hash", 12_345)).not.toThrow();
});
