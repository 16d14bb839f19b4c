import type { Seeded } from "./seeded.ts";

/**
 * How often what goes wrong, as shares of calls or deliveries. Chosen anew for every seed: calm worlds reach far, stormy ones
 * go deep.
 */
export type FaultRates = {
  /** No effect, and an error. */
  readonly failBefore: number;
  /** It took effect, the answer was lost. */
  readonly failAfter: number;
  /** An error now, the effect up to ten minutes later. */
  readonly late: number;
  /** Minutes instead of milliseconds. */
  readonly slow: number;
  /** A removal of several objects that stops half way. */
  readonly partial: number;
  /** A put that took effect and is then said to be refused, because its name is taken. */
  readonly existsAfter: number;
  /** One bit of what was read. */
  readonly flip: number;
  readonly cut: number;
  /** 404 for what was put some seconds ago. */
  readonly staleRead: number;
  /** A listing without what was put some seconds ago. */
  readonly staleList: number;
  readonly doubled: number;
  /** Denied, or out of space: nothing that is tried again. */
  readonly refused: number;
  /** Of the answers that reach an actor: it dies, and what it has in flight takes effect or doesn't. */
  readonly crash: number;
  /** Of the answers that reach an actor: it hears nothing for seconds to days, and then goes on as if nothing had been. */
  readonly doze: number;
};

export const calm: FaultRates = {
  failBefore: 0,
  failAfter: 0,
  late: 0,
  slow: 0,
  partial: 0,
  existsAfter: 0,
  flip: 0,
  cut: 0,
  staleRead: 0,
  staleList: 0,
  doubled: 0,
  refused: 0,
  crash: 0,
  doze: 0,
};

export type FaultProfile = {
  readonly rates: FaultRates;
  /** The store refuses puts to taken names by itself. */
  readonly conditionalPut: boolean;
  /** Hours in which every call fails with 503, one after so many hours. */
  readonly hoursBetweenOutages: number;
  /** Clocks of processes are off by up to this, either way. */
  readonly skewMsMax: number;
};

const dayMs = 86_400_000;

export function chooseProfile(seeded: Seeded): FaultProfile {
  const strength = seeded.pick([0.2, 1, 1, 3]) ?? 1;
  const some = (share: number, usual: number): number =>
    seeded.chance(share) ? usual * strength : 0;
  // Readers cannot tell a store that forgets what was just put from one that lost it, so those seeds are marked by their own rate.
  const isStale = seeded.chance(0.25);
  return {
    rates: {
      failBefore: some(0.8, 0.01),
      failAfter: some(0.8, 0.01),
      late: some(0.6, 0.005),
      slow: some(0.7, 0.004),
      partial: some(0.7, 0.1),
      existsAfter: some(0.6, 0.01),
      flip: some(0.3, 0.001),
      cut: some(0.3, 0.001),
      staleRead: isStale ? 0.3 : 0,
      staleList: isStale ? 0.3 : 0,
      doubled: some(0.6, 0.05),
      refused: some(0.4, 0.0005),
      crash: some(0.8, 0.0025),
      doze: some(0.8, 0.003),
    },
    conditionalPut: seeded.chance(0.7),
    hoursBetweenOutages: seeded.chance(0.3) ? seeded.between(12, 72) : 0,
    skewMsMax: seeded.pick([0, 7_200_000, 2 * dayMs, 3650 * dayMs]) ?? 0,
  };
}

/** Nothing goes wrong by itself. */
export const calmProfile: FaultProfile = {
  rates: calm,
  conditionalPut: true,
  hoursBetweenOutages: 0,
  skewMsMax: 0,
};
