/**
 * A run of bytes of a disk. Offsets and lengths are bytes, safe integers (exact to 8 PiB).
 * `data`: must be read. `zero`: reads as zeros, and an incremental records it as zeros.
 * `unchanged`: same as in the previous recovery point, a claim that is sampled, never trusted blindly.
 */
export type Extent = {
  readonly offset: number;
  readonly length: number;
  readonly kind: "data" | "zero" | "unchanged";
};
