import fc from "fast-check";
import { expect, test } from "vitest";
import { isFailure } from "../../domain/failure.ts";
import { decodeDamage, encodeDamage } from "../pack/damage.ts";
import { decodeVerified, encodeVerified } from "./verified.ts";

const id = fc.uint8Array({ minLength: 16, maxLength: 16 });
const part = fc.record({
  runId: id,
  runStartedAt: fc.maxSafeNat(),
  isWhole: fc.boolean(),
  isLast: fc.boolean(),
  replaces: fc.array(id),
  packs: fc.array(fc.record({ packId: id, hour: fc.integer({ min: 0, max: 0xffff_ffff }) })),
});

test("what was verified comes back as it was", () => {
  fc.assert(
    fc.property(part, (one) => {
      expect(decodeVerified(encodeVerified(one))).toEqual(one);
    }),
  );
});

const hex = id.map((bytes) => Buffer.from(bytes).toString("hex"));
const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const damage = fc.record({
  v: fc.constant(1 as const),
  foundAt: fc.string({ maxLength: 64 }),
  replaces: fc.array(hex),
  packs: fc.array(fc.record({ packId: hex, offsets: fc.array(u32) }, { requiredKeys: ["packId"] })),
  points: fc.array(
    fc.record({ rootKey: fc.string(), bytesDamaged: fc.maxSafeNat(), metadata: fc.boolean() }),
  ),
});

test("what is damaged comes back as it was", () => {
  fc.assert(
    fc.property(damage, (one) => {
      expect(decodeDamage(encodeDamage(one), "name")).toEqual(one);
    }),
  );
});

test("any bytes decode or are damage", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      for (const decode of [() => decodeVerified(bytes), () => decodeDamage(bytes, "name")]) {
        try {
          decode();
        } catch (error) {
          expect(isFailure(error, "object.corrupt")).toBe(true);
        }
      }
    }),
  );
});
