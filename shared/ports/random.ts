import { randomFillSync } from "node:crypto";

/** Fresh random bytes. Production uses the system's generator; tests and simulations a seeded one. */
export type RandomBytes = (lengthBytes: number) => Uint8Array;

export const systemRandom: RandomBytes = (lengthBytes) =>
  randomFillSync(new Uint8Array(lengthBytes));
