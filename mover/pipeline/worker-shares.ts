import { availableParallelism } from "node:os";

/**
 * What the transfers of one process share: as many worker threads as there are cores. The first transfer takes all that it wants, one that finds none left
 * gets one all the same, so that none waits for another; threads, and the packs that each fills, then grow by one with each disk and not by the
 * number of cores.
 */
export type WorkerShares = {
  /** At least 1, at most `wanted`; to be disposed of when the workers have ended. */
  readonly take: (wanted: number) => Disposable & { readonly workers: number };
};

export function createWorkerShares(total: number): WorkerShares {
  let free = total;
  return {
    take: (wanted) => {
      const workers = Math.max(1, Math.min(wanted, free));
      free -= workers;
      let isTaken = true;
      return {
        workers,
        [Symbol.dispose]: () => {
          if (isTaken) free += workers;
          isTaken = false;
        },
      };
    },
  };
}

/** Of this process. */
export const workerShares: WorkerShares = createWorkerShares(availableParallelism());
