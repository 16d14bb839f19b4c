import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseQcow2Header } from "./qcow2-header.ts";

type Change = (bytes: Buffer) => void;

function header(version: 2 | 3, ...changes: readonly Change[]): Buffer {
  const bytes = Buffer.alloc(1024);
  bytes.writeUInt32BE(0x514649fb, 0);
  bytes.writeUInt32BE(version, 4);
  bytes.writeUInt32BE(16, 20);
  bytes.writeBigUInt64BE(10n * 2n ** 30n, 24);
  if (version === 3) {
    bytes.writeUInt32BE(4, 96);
    bytes.writeUInt32BE(104, 100);
  }
  for (const change of changes) change(bytes);
  return bytes;
}

const feature =
  (bits: bigint): Change =>
  (bytes) =>
    void bytes.writeBigUInt64BE(bits, 72);
const extension =
  (type: number, length: number): Change =>
  (bytes) => {
    bytes.writeUInt32BE(type, 104);
    bytes.writeUInt32BE(length, 108);
  };

describe("a qcow2 header", () => {
  test("of a plain image gives its size", () => {
    const expected = { sizeBytes: 10 * 2 ** 30, clusterBytes: 65_536 };
    expect(parseQcow2Header(header(3), "x")).toEqual({ version: 3, ...expected });
    expect(parseQcow2Header(header(2), "x")).toEqual({ version: 2, ...expected });
  });

  test.each<[string, Buffer]>([
    ["dirty", header(3, feature(1n))],
    ["zstd", header(3, feature(8n))],
    ["extended L2", header(3, feature(16n))],
    ["bitmaps", header(3, extension(0x23852875, 24))],
    ["feature names", header(3, extension(0x6803f857, 384))],
  ])("with %s is fine", (_name, bytes) => {
    expect(parseQcow2Header(bytes, "x").sizeBytes).toBe(10 * 2 ** 30);
  });

  test.each<[string, Buffer]>([
    ["a backing file", header(3, (bytes) => void bytes.writeBigUInt64BE(500n, 8))],
    ["a backing file's name length only", header(2, (bytes) => void bytes.writeUInt32BE(9, 16))],
    ["AES", header(3, (bytes) => void bytes.writeUInt32BE(1, 32))],
    ["LUKS", header(3, (bytes) => void bytes.writeUInt32BE(2, 32))],
    ["an external data file", header(3, feature(4n))],
    ["a data file's name without the feature", header(3, extension(0x44415441, 8))],
    ["a crypto header", header(3, extension(0x0537be77, 16))],
    ["the corrupt mark", header(3, feature(2n))],
    ["an unknown feature", header(3, feature(32n))],
    ["the last unknown feature", header(3, feature(1n << 63n))],
  ])("with %s is unsupported", (_name, bytes) => {
    expect(() => parseQcow2Header(bytes, "x")).toThrow(
      expect.objectContaining({ code: "unsupported" }),
    );
  });

  test.each<[string, Buffer]>([
    ["nothing", Buffer.alloc(0)],
    ["another magic", Buffer.alloc(512)],
    ["half a header", header(3).subarray(0, 80)],
    ["version 1", header(2, (bytes) => void bytes.writeUInt32BE(1, 4))],
    ["version 4", header(3, (bytes) => void bytes.writeUInt32BE(4, 4))],
    ["clusters of 256 bytes", header(3, (bytes) => void bytes.writeUInt32BE(8, 20))],
    ["clusters of 4 GiB", header(3, (bytes) => void bytes.writeUInt32BE(32, 20))],
    ["a size of 2^63", header(3, (bytes) => void bytes.writeBigUInt64BE(2n ** 63n, 24))],
    ["a header length beyond the file", header(3, (bytes) => void bytes.writeUInt32BE(4096, 100))],
    ["an odd header length", header(3, (bytes) => void bytes.writeUInt32BE(105, 100))],
    ["an extension of 4 GiB", header(3, extension(5, 0xffffffff))],
  ])("with %s is invalid", (_name, bytes) => {
    expect(() => parseQcow2Header(bytes, "x")).toThrow(
      expect.objectContaining({ code: "input.invalid" }),
    );
  });

  test("of any bytes is read or refused, never anything else", () => {
    const bytes = fc.uint8Array({ minLength: 0, maxLength: 600 });
    const property = fc.property(
      fc.constantFrom(2, 3),
      bytes,
      fc.nat(600),
      (version, noise, at) => {
        const image = header(version === 2 ? 2 : 3);
        image.set(noise.subarray(0, image.length - at), at);
        image.writeUInt32BE(0x514649fb, 0);
        try {
          expect(Number.isSafeInteger(parseQcow2Header(image, "x").sizeBytes)).toBe(true);
        } catch (error) {
          expect(error).toMatchObject({ name: "Failure" });
        }
      },
    );
    fc.assert(property, { numRuns: 3000 });
  });
});
